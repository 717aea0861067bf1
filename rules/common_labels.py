"""Labels that everybody uses, so that one of them tells an onlooker little.

In the sum over all suffixes of an app each is worth one octet: a name of one of 255 is eight bits.
"""

_WORDS = (
    # hosts and services
    "www www1 www2 web site home blog news shop store app apps m mobile beta alpha dev test "
    "staging stage prod production demo preview sandbox portal my account accounts user users "
    # interfaces
    "api api1 api2 apis v1 v2 v3 v4 rest graphql rpc grpc ws wss socket gateway gw edge origin "
    "auth login sso oauth oauth2 id identity token tokens session accounts-api connect "
    # files
    "cdn cdn1 cdn2 static static1 static2 assets asset img img1 img2 image images media video "
    "videos files file download downloads dl upload uploads data content fonts css js s "
    "objects blob storage s3 bucket mirror mirrors archive archives dist release releases "
    # packages and code
    "git gitlab github registry index pypi npm packages package repo repos docker hub ghcr charts "
    "crates proxy sum golang deb rpm apt yum security ports cache raw codeload "
    # mail and names (RFC 6186, RFC 7489, RFC 6376, RFC 8461, RFC 8555, RFC 9460)
    "mail mail1 mail2 smtp imap pop pop3 mx mx1 mx2 mta mta-sts webmail autodiscover autoconfig "
    "ns ns1 ns2 ns3 ns4 dns dns1 dns2 _dmarc _domainkey _acme-challenge _mta-sts _smtp _tls "
    "_tcp _udp _http _https _dns _dnslink _spf spf dkim dmarc default selector1 selector2 google "
    "k1 k2 k3 s1 s2 _imaps _submission _sip _sips _xmpp-client _ldap _kerberos _domainconnect "
    # telemetry, time, updates
    "telemetry metrics stats status analytics events event logs log collector ingest crash "
    "update updates time ntp ocsp crl crl3 ocsp2 push notify notifications feedback ping health "
    # places
    "us eu asia ap us-east-1 us-east-2 us-west-1 us-west-2 eu-west-1 eu-central-1 global intl en "
    "de fr jp cn uk docs doc help support wiki forum community search ads track pixel maps"
)

COMMON_LABELS = frozenset(_WORDS.split())
