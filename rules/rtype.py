"""DNS record types by mnemonic (IANA DNS parameters; RFC 3597, section 5, for TYPE123)."""

import re

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA = 1, 2, 5, 6, 12, 15, 16, 28
SRV, NAPTR, DNAME, OPT, SVCB, HTTPS, ANY = 33, 35, 39, 41, 64, 65, 255

BY_MNEMONIC = {
    "A": A, "NS": NS, "CNAME": CNAME, "SOA": SOA, "NULL": 10, "PTR": PTR, "HINFO": 13, "MX": MX,
    "TXT": TXT, "RP": 17, "AFSDB": 18, "KEY": 25, "AAAA": AAAA, "LOC": 29, "SRV": SRV,
    "NAPTR": NAPTR, "CERT": 37, "DNAME": DNAME, "OPT": OPT, "DS": 43, "SSHFP": 44, "RRSIG": 46,
    "NSEC": 47, "DNSKEY": 48, "NSEC3": 50, "NSEC3PARAM": 51, "TLSA": 52, "SMIMEA": 53, "CDS": 59,
    "CDNSKEY": 60, "OPENPGPKEY": 61, "CSYNC": 62, "ZONEMD": 63, "SVCB": SVCB, "HTTPS": HTTPS,
    "SPF": 99, "EUI48": 108, "EUI64": 109, "TKEY": 249, "TSIG": 250, "IXFR": 251, "AXFR": 252,
    "MAILB": 253, "MAILA": 254, "ANY": ANY, "URI": 256, "CAA": 257,
}  # fmt: skip
_BY_NUMBER = {number: mnemonic for mnemonic, number in BY_MNEMONIC.items()}


def number(mnemonic: str) -> int | None:
    """Return the type's number; None for an unknown mnemonic or a number over 65535."""
    known = BY_MNEMONIC.get(mnemonic.upper())
    if known is not None:
        return known
    unknown = re.fullmatch(r"TYPE(\d{1,5})", mnemonic.upper(), re.ASCII)
    value = int(unknown[1]) if unknown else 65536
    return value if value < 65536 else None


def mnemonic(rtype: int) -> str:
    """Return the type's name, `TYPE123` where it has none."""
    return _BY_NUMBER.get(rtype, f"TYPE{rtype}")
