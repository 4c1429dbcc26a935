# SPDX-License-Identifier: Apache-2.0
"""What a vserver and a service are made of, between the two configurations."""

import dataclasses

from .model import Entity


@dataclasses.dataclass(frozen=True)
class Trust:
    """Whom a side of ours verifies its peers against."""

    cas: tuple = ()  # certkeys
    partial_chain: bool = False
    crl_check: str = "off"
    crls: tuple = ()  # names of ssl crl objects
    ocsp: str = "off"
    responder: str = ""  # name of the ssl ocspResponder


@dataclasses.dataclass(frozen=True)
class Speech:
    """What TLS is spoken; "": as by default."""

    tls_min: str = ""
    tls_max: str = ""
    ciphers: str = ""
    ciphersuites: str = ""
    groups: str = ""


@dataclasses.dataclass
class Ssl:
    """The SSL settings that count for a vserver or a service."""

    source: str  # what our profile is named after: the ssl profile, or NAME-front without one
    settings: dict
    profile: Entity = None
    binds: list = dataclasses.field(default_factory=list)  # of ciphers and curves


@dataclasses.dataclass(frozen=True)
class Front:
    """What a profile of ours says of a vserver's side."""

    source: str
    speech: Speech
    client_auth: str
    alpn: str = ""
    trust: Trust = Trust()
    announce_ca_names: bool = True
    ticket_lifetime: str = ""  # "": no tickets


@dataclasses.dataclass(frozen=True)
class Back:
    source: str
    speech: Speech
    dynamic: bool
    forging: str  # certkey
    trust: Trust


@dataclasses.dataclass
class Service:
    """A backend that can be translated."""

    name: str  # NetScaler's, or the one made for a group's member
    address: str
    server_name: str
    back: Back
    commands: list
    remarks: list
    weight: str = None
    check: tuple = ()  # keys


@dataclasses.dataclass
class Vserver:
    entity: Entity
    listen: str
    certkeys: tuple
    allow_unknown_sni: bool
    front: Front
    services: list
    balance: str
    remarks: list
