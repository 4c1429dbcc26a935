# SPDX-License-Identifier: Apache-2.0
"""Values as NetScaler and ktlsgate write them."""

import ipaddress
import re

from .common import Fault, printable


TLS_TYPES = ("ssl", "ssl_tcp")
# As NetScaler calls those that we speak, "_" being "-".
CIPHERS = {
    f"TLS1.2-{cipher}": cipher
    for cipher in (
        f"ECDHE-{key}-{aead}"
        for key in ("RSA", "ECDSA")
        for aead in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    )
}
SUITES = {
    "TLS1.3-AES256-GCM-SHA384": "TLS_AES_256_GCM_SHA384",
    "TLS1.3-AES128-GCM-SHA256": "TLS_AES_128_GCM_SHA256",
    "TLS1.3-CHACHA20-POLY1305-SHA256": "TLS_CHACHA20_POLY1305_SHA256",
}
ALPN = {"http1.1": "http/1.1", "http2": "h2"}
METHODS = {
    "roundrobin": "round-robin",
    "leastconnection": "least-connections",
    "sourceiphash": "source-hash",
}
CURVES = {"P_256": "P-256", "P_384": "P-384", "P_521": "P-521", "X_25519": "X25519"}
DEFAULT_PROFILES = {
    True: "ns_default_ssl_profile_frontend",
    False: "ns_default_ssl_profile_backend",
}
NO_RESPONDER = "http://127.0.0.1:9/"  # RFC 863's port: refused, so it fails closed
IDLE_DEFAULT = 180  # -cltTimeout of an SSL vserver


def number(text, least, most):
    return re.fullmatch(r"\d{1,9}", text) is not None and least <= int(text) <= most


def enabled(settings, name, default="disabled"):
    """Whether the option is switched on."""
    value = settings[name].value.lower() if name in settings else default
    if value not in ("enabled", "disabled", "yes", "no", "on", "off"):
        raise Fault(f"-{name} {printable(value)}: it is ENABLED or DISABLED")
    return value in ("enabled", "yes", "on")


def address(text):
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        raise Fault(f"'{printable(text)}' is no IP address") from None
    if ip.version == 6 and ip.ipv4_mapped:
        raise Fault("an IPv4 address must be written as one")
    return ip


def port_text(text):
    if not number(text, 1, 65535):
        raise Fault(f"'{printable(text)}' is no port; ktlsgate needs one")
    return str(int(text))


def address_text(network, port):
    """Of an address or a prefix, as our keys have it."""
    host, _, prefix = str(network).partition("/")
    host = host if network.version == 4 else f"[{host}]"
    return (
        f"{host}:{port}"
        if prefix in ("", str(network.max_prefixlen))
        else f"{host}/{prefix}:{port}"
    )


def mask_network(pattern, mask):
    """The prefix of -IPPattern and -IPMask; masks with their ones in the end are none."""
    try:
        return ipaddress.ip_network(f"{pattern}/{mask}", strict=False)
    except ValueError:
        raise Fault(
            f"-IPPattern {printable(pattern)} -IPMask {printable(mask)} is no prefix"
        ) from None


def is_hostname(name):
    try:
        ipaddress.ip_address(name)
        return False
    except ValueError:
        label = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
        return len(name) <= 253 and re.fullmatch(rf"{label}(\.{label})*", name) is not None
