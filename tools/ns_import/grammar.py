# SPDX-License-Identifier: Apache-2.0
"""Which commands and options there are, and what becomes of each."""

import dataclasses
import re

from .common import Fault, printable


VERBS = """add apply archive batch bind check clear config convert create diff disable enable exit
    export force get import init install join kill link lock logout man migrate ping quit reboot
    release rename renumber reset restore rm save send set show start stat stop sync
    switch test traceroute unbind unlink unlock unset update""".split()
OUR_VERBS = {"add", "bind", "set", "unset", "unbind", "link", "rm", "enable", "disable", "update"}
QUIET_VERBS = {"show", "stat", "save", "quit", "exit"}  # they configure nothing
# What is translated, by its first and its second word.
KINDS = {
    "server": "",
    "service": "",
    "serviceGroup": "",
    "lb": "vserver monitor",
    "ns": "feature",
    "ssl": "certKey profile vserver service serviceGroup parameter cipher crl ocspResponder",
}
# Second words that are not, so that "ssl cert" is no certKey.
OTHER_KINDS = {
    "ns": """acl acl6 acls config encryptionParams hardware hostName httpParam httpProfile ip ip6
        limitIdentifier mode param partition pbr pbr6 pbrs rpcNode simpleacl spParams tcpParam tcpProfile tcpbufParam
        timeout timezone variable vpxparam weblogparam""",
    "lb": """group metricTable monbindings parameter persistentSessions policy policylabel
        profile route sipParameters wlm action global""",
    "ssl": """action caCertGroup cert certBundle certChain certFile certKeyBundle certLink certReq
        cipherSuite crlFile dhFile dhParam dsaKey dtlsProfile ecdsaKey fips fipsKey global hsmKey
        keyFile logprofile pkcs12 pkcs8 policy policylabel rsakey
        sslCertificateChain wrapkey""",
}
# First words of kinds with two, and why they are not translated.
HTTP = "it works on HTTP, which ktlsgate does not read: it forwards bytes"
ACCESS = "gateway, log-on and authorization are nothing that ktlsgate does"
SYSTEM = "the appliance's own system and network; here they are the operating system's"
NAMES = "ktlsgate serves no names"
WATCH = "how the appliance is watched; see ktlsgatectl(8)"
NOTHING = "ktlsgate has nothing like it"
GROUPS = {
    reason: words.split()
    for reason, words in (
        (
            HTTP,
            """cs rewrite responder cache cmp appfw filter policy transform feo appqoe bot cr
        contentInspection urlfiltering videooptimization api sc pq dos stream""",
        ),
        (ACCESS, "aaa vpn authentication authorization tm ica rdp"),
        (SYSTEM, "system ha cluster network ipsec lsn subscriber"),
        (NAMES, "dns gslb"),
        (WATCH, "snmp audit appflow analytics ulfd"),
        (NOTHING, "autoscale db micro quic user reputation smpp"),
    )
}
SINGLE_KINDS = {
    SYSTEM: """arp bridge bridgegroup bridgetable channel fis forwardingSession inat
    interface interfacePair ip6Tunnel ip6TunnelParam ipTunnel ipTunnelParam ipset L2Param L3Param
    L4Param lacp linkset lldp location locationFile locationParameter map nat64 nd6
    nd6RAvariables netbridge netProfile nd ptp qos rnat rnat6 rnatglobal rnatparam route route6
    rsskeytype tunnelglobal vPathParam vlan vrID vrID6 vridparam vxlan vxlanVlanMap config"""
}
# Second words of what is not translated; no other is printed, since it might be anything.
SECONDS = set(
    """action alarm certpolicy community contentgroup expression feature global group
    groupmember httpcallout injectedscript ip ldapaction ldappolicy limitidentifier loginschema
    manager messageaction mib mode monitor nameserver node nslogaction nslogpolicy option param parameter params partition
    patset policy policylabel preauthenticationpolicy profile radiusaction radiuspolicy
    samlaction server service sessionaction sessionpolicy settings signatures site stringmap
    syslogaction syslogpolicy tcpprofile trap urlset user vserver zone""".split()
)


@dataclasses.dataclass(frozen=True)
class Option:
    """quiet: values that ask for nothing else than what ktlsgate does; None: the translator's."""

    name: str
    quiet: frozenset = None
    reason: str = ""

    def wants_nothing(self, value):
        return self.quiet is not None and ("*" in self.quiet or value.lower() in self.quiet)


def options(table):
    """Lines "name ... | quiet value ... | reason"; without a bar the translator takes the option."""
    found = {}
    for line in filter(None, map(str.strip, table.strip().splitlines())):
        names, *rest = (part.strip() for part in line.split("|"))
        quiet = frozenset(rest[0].lower().split()) if rest else None
        for name in names.split():
            found[name] = Option(name, quiet, globals().get(rest[1], rest[1]) if rest else "")
    return found


MONITOR = "backends are not probed in the way of this monitor"
OCSP = "OCSP is not asked: revoked certificates pass"
PROBE = "a probe ends with the connection or the TLS handshake"
PROFILES = "this profile of the appliance has no counterpart"
PACKETS = "tunes the appliance's packet engine"
PERSISTENCE = "no persistence but by source address: each connection is balanced by itself"
LIMITS = "no such limit"
SOURCE = "the backend is connected to from this machine's own addresses"
UNSPOKEN = (
    "this cipher is not spoken: ECDHE with AES-GCM or ChaCha20-Poly1305 in TLS 1.2, and "
    "TLS 1.3, are"
)
UNKNOWN_GROUP = (
    "which ciphers the appliance has in this group is not known: all that are spoken "
    "here are offered"
)
RESUMPTION = "sessions are resumed with tickets only; with backends, see session_reuse"
FETCHED = "CRLs are not fetched; the file is read anew when it changes: have cron fetch it"
ECDHE = "the key exchange is ECDHE, always"
VERSIONS = "TLS 1.2 and 1.3 are spoken, no other version"
OPTIONS = {
    "server": options(
        """
        state
        comment domainResolveRetry domainResolveNow devno svrCfgFlag internal | * |
        ipv6Address | no | names are not resolved
        queryType translationIp translationMask | | names are not resolved
        td | 0 | traffic domains have no counterpart"""
    ),
    "service": options(
        """
        state IPAddress cltTimeout svrTimeout weight monitorName healthMonitor monState
        passive comment devno serverID hashId CustomServerID cacheType svcitmactsvcs oracleServerVersion | * |
        gslb | none | NAMES
        maxClient maxReq maxBandwidth monThreshold | 0 | LIMITS
        cip | disabled | HTTP
        usip | no | SOURCE
        useproxyport | yes | SOURCE
        pathMonitor pathMonitorIndv accessDown | no | PACKETS
        sp rtspSessionidRemap | off | PACKETS
        CKA TCPB CMP cacheable | no | HTTP
        clearTextPort | 0 * | NOTHING
        downStateFlush | enabled disabled | MONITOR
        appflowLog | disabled | WATCH
        tcpProfileName httpProfileName netProfile dnsProfileName quicProfileName \
            contentInspectionProfileName | | PROFILES
        td | 0 | traffic domains have no counterpart
        processLocal | disabled | PACKETS
        monConnectionClose | none reset fin | MONITOR
        policyName | | HTTP"""
    ),
    "lb vserver": options(
        """
        state cltTimeout lbMethod weight persistenceType range IPPattern IPMask
        devno timeout persistMask v6persistmasklen Listenpriority hashLength probeProtocol \
            priority gotoPriorityExpression type invoke order backupPersistenceTimeout probePort \
            comment dataLength dataOffset soPersistenceTimeOut | * |
        persistenceBackup | none | PERSISTENCE
        cookieName rule resRule skippersistency persistAVPno | none | PERSISTENCE
        backupLBMethod | * |
        netmask v6netmasklen | 255.255.255.255 128 | hashes are made of whole addresses
        Listenpolicy | none | which connections a vserver takes is said by its address and port only
        IPAddress IPSet | | sets of addresses, and changes of one, are not translated
        rtspNat sessionless trofsPersistence soPersistence push redirectPortRewrite dbsLb dns64 \
            processLocal macmodeRetainvlan disablePrimaryOnDown connfailover recursionAvailable \
            bypassAAAA | off disabled no | NOTHING
        m | ip | PACKETS
        tosId minAutoscaleMembers maxAutoscaleMembers healthThreshold newServiceRequest \
            newServiceRequestIncrementInterval | 0 | NOTHING
        redirectURL redirectFromPort httpsRedirectUrl pushVserver pushLabel pushMultiClients \
            policyName | | HTTP
        cacheable | no | HTTP
        insertVserverIPPort | off | HTTP
        soMethod soThreshold soBackupAction | none | LIMITS
        backupVServer | | there are no backup vservers
        downStateFlush | enabled disabled | MONITOR
        Authentication authn401 | off | ACCESS
        AuthenticationHost authnVsName authnProfile | | ACCESS
        tcpProfileName httpProfileName dbProfileName netProfile dnsProfileName lbprofilename \
            quicProfileName adfsProxyProfile apiProfile quicBridgeProfilename analyticsProfile \
            | | PROFILES
        l2Conn | off | PACKETS
        appflowLog | disabled | WATCH
        icmpVsrResponse RHIstate | passive | SYSTEM
        retainConnectionsOnCluster | no | SYSTEM
        td | 0 | traffic domains have no counterpart"""
    ),
    "lb monitor": options(
        """
        interval resptimeout retries successRetries secure
        downTime resptimeoutThresh devno units1 units2 units3 units4 Snmpversion alertRetries | * |
        LRTM reverse transparent tos ipTunnel state | disabled no enabled | MONITOR
        deviation failureRetries tosId | 0 | MONITOR
        action | down | MONITOR
        destIP destPort | | a service is probed where it is
        netProfile | | SOURCE
        send recv httpRequest respCode customHeaders rtspRequest query queryType userName password \
            secondaryPassword | | PROBE
        sslProfile | | PROFILES"""
    ),
    "ssl certKey": options(
        """
        cert key inform passcrypt password passplain fipsKey hsmKey ocspResponder
        bundle expiryMonitor notificationPeriod devno deleteFromDevice encrypted encryptmethod kek \
            suffix noDomainCheck deleteCertKeyFilesOnRemoval linkCertKeyName ocspStaplingCache | * |
        priority | * |"""
    ),
    "ssl profile": options(
        """
        sslProfileType sslProfile clientAuth clientCert dynamicClientCert serverAuth commonName
        SNIEnable allowUnknownSNI alpnProtocol tls12 tls13 certkeyName CA SNICert forgingCACertkey crlCheck
        ocspCheck skipCAName cipherName eccCurveName
        cipherPriority devno sessTimeout comment | * |
        dh eRSA dhKeyExpSizeLimit cipherRedirect | disabled | ECDHE
        dhFile dhCount dhEkeyExchange eRSACount cipherURL | * | ECDHE
        ssl2 ssl3 tls1 tls11 dtls1 dtls12 sslv2Redirect | disabled | VERSIONS
        sslv2URL dtlsProfileName | | VERSIONS
        sessionTicket sessionTicketLifeTime
        sessReuse | disabled | RESUMPTION
        sessionTicketKeyRefresh | enabled disabled |
        sessionTicketKeyData sessionKeyLifeTime prevSessionKeyLifeTime \
            tls13SessionTicketsPerAuthContext | * |
        dheKeyExchangeWithPsk | yes no | ECDHE
        zeroRttEarlyData | disabled | early data can be replayed, and is never taken
        denySSLReneg | all | renegotiation is always refused
        maxRenegRate ssliReneg | 0 disabled | renegotiation is always refused
        sendCloseNotify | yes | ends of connections are passed on as they are
        sslRedirect redirectPortRewrite HSTS | disabled | HTTP
        IncludeSubdomains preload maxage | no 0 | HTTP
        dropReqWithNoHostHeader sniHTTPHostMatch | no cert none | HTTP
        insertionEncoding | unicode utf-8 |
        clearTextPort | 0 | NOTHING
        strictCAChecks strictSigDigestCheck | yes no enabled disabled |
        skipClientCertPolicyCheck | disabled | all of a client certificate's chain is verified
        clientAuthUseBoundCAChain | disabled | certificates that the client sends may complete its chain
        allowExtendedMasterSecret | yes no |
        ocspStapling | disabled | responders are not asked for our own certificate's status
        defaultSNI | | only a service's own name is sent
        pushEncTrigger quantumSize encryptTriggerPktCount pushFlag \
            pushEncTriggerTimeout sslTriggerTimeout | always 8192 45 0 1 100 | PACKETS
        sslInterception | disabled | forward proxies (SSL interception) have no counterpart
        ssliOCSPCheck ssliVerifyServerCertForReuse ssliMaxSessPerServer | * |
        ssliCACertkey caCertkeyBundle certKeyBundleName | | NOTHING
        sslLogProfile | | WATCH
        encryptedClientHello | disabled | VERSIONS
        policyName | | HTTP
        priority gotoPriorityExpression type invoke labelType labelName | * |"""
    ),
    "ssl parameter": options(
        """
        defaultProfile
        devno | * |"""
    ),
    "ssl cipher": options(
        """
        cipherName
        cipherPriority cipherPriorities sslProfile | * |"""
    ),
    "ssl ocspResponder": options(
        """
        url respTimeout
        cache cacheTimeout batchingDepth batchingDelay producedAtTimeSkew ocspUrlResolveTimeout \
            httpMethod insertClientCert useNonce devno | * |
        responderCert signingCert trustResponder | | an answer is believed if the CA, or whom it appointed, signed it"""
    ),
    "ssl crl": options(
        """
        CAcert
        inform devno | * |
        refresh | disabled | FETCHED
        interval url server method port day time baseDN scope bindDN password binary gzip | * |"""
    ),
    "ns feature": {},
}
OPTIONS["serviceGroup"] = {
    **OPTIONS["service"],
    **options(
        """
    weight CustomServerID monitorName
    autoScale autoDisablegraceful | disabled no | NOTHING
    memberPort autoDisabledelay nameServer dbsTTL passive order bootstrap topicName | * |"""
    ),
}
for _kind in ("vserver", "service", "serviceGroup"):
    OPTIONS[f"ssl {_kind}"] = {
        n: o for n, o in OPTIONS["ssl profile"].items() if n != "sslProfileType"
    }
del OPTIONS["ssl profile"]["sslProfile"]
# Of these no value is printed; requests and expressions may hold credentials too.
SECRET = re.compile(
    r"pass|secret|keydata|keyvalue|encrypt|kek|suffix|send$|recv|header|request|user|"
    "bind|rule|url|policy|label|cookie|query",
    re.IGNORECASE,
)


def choose(word, choices, what, ours=()):
    """
    NetScaler takes any beginning that is unique; case never matters. Among several the one that is
    ours, if there is just one.
    """
    found = {c for c in choices if c.lower() == word.lower()}
    found = found or {c for c in choices if c.lower().startswith(word.lower())}
    if len(found) > 1 and len(found.intersection(ours)) == 1:
        found.intersection_update(ours)
    if len(found) > 1:
        raise Fault(f"'{printable(word)}' may mean {', '.join(sorted(found)[:4])}")
    if not found:
        raise Fault(f"no such {what}")
    return found.pop()
