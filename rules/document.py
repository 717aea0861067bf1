"""A rule file as it is written: its keys, their types and what they mean.

These Structs are the one source of the loader's type checks, of the JSON Schema that editors
use, and of the table of keys in docs/.  What the types cannot say is checked in `rules.syntax`.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from rules.decision import Refuse


def _said(description: str) -> Meta:
    return Meta(description=description)


Word = Annotated[
    str,
    Meta(
        pattern="^[a-z0-9-]+$",
        extra={"wanted": "a word of lower-case letters, digits and hyphens"},
    ),
]
Title = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9 _.-]{0,62}[A-Za-z0-9_.-])?$",
        extra={"wanted": "a name of up to 64 letters, digits, spaces inside, `_`, `.` and `-`"},
    ),
]
Digest = Annotated[
    str, Meta(pattern="^[0-9a-f]{64}$", extra={"wanted": "64 lower-case hex digits in quotes"})
]
Port = Annotated[int, Meta(ge=1, le=65535)]  # port 0 is no destination (RFC 6335, section 6)
Uid = Annotated[int, Meta(ge=0, le=4294967294)]  # chown(2): the last one means "none"
PcrIndex = Annotated[
    str,
    Meta(
        pattern=r"^(?:[0-9]|1[0-9]|2[0-3])$",  # a PC Client TPM has 24 (PFP, section 3.3.1)
        extra={"wanted": "the index of a PCR, 0 to 23"},
    ),
]
Duration = int | str
Texts = Annotated[list[str], Meta(min_length=1)]
Hosts = Annotated[
    str | Texts,
    _said(
        "Names. `example.com` is that name only, `*.example.com` one more label, "
        "`**.example.com` one or more; in deny, `*` alone is every name and literal."
    ),
]
Ports = Annotated[list[Port], Meta(min_length=1, description="TCP ports.")]
Types = Annotated[Texts, _said("DNS record types, by mnemonic or TYPE123.")]
Addresses = Annotated[Texts, _said("Addresses and networks, ADDRESS/LENGTH.")]
Methods = Annotated[Texts, _said("HTTP methods, in upper case.")]
Paths = Annotated[Texts, _said("Patterns over paths: `*` within a segment, `**` over segments.")]


class Process(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process at the other end of a TCP connection; all keys must match."""

    uid: Annotated[Uid, _said("Its user id.")] | UnsetType = UNSET
    cgroup: Annotated[str, _said("Its cgroup, from the root of the hierarchy.")] | UnsetType = UNSET
    exe_sha256: Annotated[Digest, _said("The SHA-256 digest of its executable.")] | UnsetType = (
        UNSET
    )


class Identity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of evidence; all its keys must match."""

    lease: (
        Annotated[Word, _said("A sandbox lease. No launcher grants one in this version.")]
        | UnsetType
    ) = UNSET
    spiffe: Annotated[str, _said("The SPIFFE ID of a client certificate (mTLS).")] | UnsetType = (
        UNSET
    )
    token: Annotated[Word, _said("A token made for that app.")] | UnsetType = UNSET
    listener: (
        Annotated[str, _said("One of our listen addresses, ADDRESS:PORT, for this app only.")]
        | UnsetType
    ) = UNSET
    process: Annotated[Process, _said("Ambient, TCP only.")] | UnsetType = UNSET


class Attested(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an attestation must say."""

    level: (
        Annotated[Literal["software", "launched", "tpm"], _said("Default software.")] | UnsetType
    ) = UNSET
    max_age: (
        Annotated[Duration, _said("Seconds, or text such as 5m. Default 300s.")] | UnsetType
    ) = UNSET


class AttestedRequirement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The requirement `attested` with its terms."""

    attested: Attested


Requirement = Literal["mtls", "attested"] | AttestedRequirement
Require = Annotated[
    list[Requirement],
    Meta(
        min_length=1,
        description="What must be proven besides: mtls, attested, {attested: {level, max_age}}.",
    ),
]


class Launch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One program that may be launched; what is absent must not be there."""

    file: Annotated[Digest, _said("SHA-256 of the file that is executed.")]
    script: Annotated[Digest, _said("SHA-256 of its script.")] | UnsetType = UNSET
    interpreter: Annotated[Digest, _said("SHA-256 of the interpreter.")] | UnsetType = UNSET


Digests = Annotated[list[Digest], Meta(min_length=1)]


class ReferenceValues(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What evidence must be for an attestation to succeed."""

    pcrs: (
        Annotated[
            dict[PcrIndex, Digest | Digests],
            _said("By index, the values that a PCR may have (SHA-256). All of them are quoted."),
        ]
        | UnsetType
    ) = UNSET
    tpms: (
        Annotated[Digests, _said("SHA-256 of the public keys of TPMs (EK). Default any trusted.")]
        | UnsetType
    ) = UNSET
    keys: (
        Annotated[Digests, _said("SHA-256 of the public software keys. Default any.")] | UnsetType
    ) = UNSET
    launched: (
        Annotated[list[Launch], Meta(min_length=1, description="What may be launched.")] | UnsetType
    ) = UNSET


class Capability(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the app may have tokens for."""

    audience: Annotated[str, _said("Who takes the token: an absolute URI, or a SPIFFE ID.")]
    scopes: Annotated[Texts, _said("What it may say there, such as read-project-x:documents.")]
    ttl: Annotated[Duration, _said("How long at most, 1s to 1h. Default 60s.")] | UnsetType = UNSET
    on_behalf_of: (
        Annotated[
            list[Word],
            Meta(min_length=1, description="Apps whose tokens the app may pass on in its name."),
        ]
        | UnsetType
    ) = UNSET
    require: (
        Annotated[
            list[Requirement],
            Meta(min_length=1, description="What must be proven. Default attested."),
        ]
        | UnsetType
    ) = UNSET


class ClientCertificate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is presented to the origin: `svid` alone, or `cert` and `key`."""

    svid: Annotated[str, _said("One of the app's SPIFFE IDs.")] | UnsetType = UNSET
    cert: Annotated[str, _said("A PEM file, the chain; relative to this file.")] | UnsetType = UNSET
    key: Annotated[str, _said("A PEM file, its private key.")] | UnsetType = UNSET


Mode = Literal["block", "alert", "observe", "off"]


class Detect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done about what leaks through look-ups (docs/detection.md)."""

    mode: Annotated[Mode, _said("Tunnels. Default block.")] | UnsetType = UNSET
    flux: Annotated[Mode, _said("Fast flux. Default observe.")] | UnsetType = UNSET
    cloaking: Annotated[Mode, _said("CNAME cloaking. Default observe.")] | UnsetType = UNSET


class Allow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One allow: names (`host`), literals (`addresses` without `host`), or a `pack` of allows."""

    name: Annotated[Title, _said("Names the rule; else it is file:line.")] | UnsetType = UNSET
    host: Hosts | UnsetType = UNSET
    ports: Annotated[Ports, _said("TCP ports. Default 443.")] | UnsetType = UNSET
    types: Annotated[Types, _said("DNS types. Default A, AAAA, CNAME, HTTPS.")] | UnsetType = UNSET
    tls: (
        Annotated[bool, _said("false: do not read the ClientHello (the server speaks first).")]
        | UnsetType
    ) = UNSET
    ech: (
        Annotated[Literal["cut", "accept"], _said("Encrypted ClientHello. Default cut.")]
        | UnsetType
    ) = UNSET
    addresses: (
        Annotated[
            Addresses,
            _said("With host: what the names may stand for besides public addresses."),
        ]
        | UnsetType
    ) = UNSET
    multi_tenant: (
        Annotated[
            Literal["accepted"], _said("Needed where a wildcard covers customers of one host.")
        ]
        | UnsetType
    ) = UNSET
    methods: Methods | UnsetType = UNSET
    paths: Paths | UnsetType = UNSET
    https_upgrade: (
        Annotated[bool, _said("true: plain HTTP to us, TLS to the origin; port 80 becomes 443.")]
        | UnsetType
    ) = UNSET
    client_certificate: (
        Annotated[
            Literal["svid"] | ClientCertificate,
            _said("With https_upgrade: what an origin is shown that asks for a certificate."),
        ]
        | UnsetType
    ) = UNSET
    require: Require | UnsetType = UNSET
    detect: (
        Annotated[Detect, _said("In place of the app's; an absent key is as the app says.")]
        | UnsetType
    ) = UNSET
    pack: Annotated[str, _said("A list of allows that is shipped.")] | UnsetType = UNSET


class Deny(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One deny: an absent key matches everything, and it wins over every allow."""

    name: Annotated[Title, _said("Names the rule; else it is file:line.")] | UnsetType = UNSET
    host: Hosts | UnsetType = UNSET
    ports: Annotated[Ports, _said("With ports it never matches a look-up.")] | UnsetType = UNSET
    types: Annotated[Types, _said("With types it matches look-ups only.")] | UnsetType = UNSET
    addresses: Addresses | UnsetType = UNSET
    methods: Methods | UnsetType = UNSET
    paths: Paths | UnsetType = UNSET
    reason: Annotated[str, _said("What the asker is told.")] | UnsetType = UNSET


class App(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One app; it may be spread over files, which add up."""

    identity: (
        Annotated[list[Identity], Meta(min_length=1, description="Any one line names the app.")]
        | UnsetType
    ) = UNSET
    require: Require | UnsetType = UNSET
    refuse: Annotated[Refuse, _said("How refused look-ups are worded.")] | UnsetType = UNSET
    allow: Annotated[list[Allow], _said("What the app may reach; [] is nothing.")] | UnsetType = (
        UNSET
    )
    deny: Annotated[list[Deny], _said("What it may not; [] is nothing.")] | UnsetType = UNSET
    detect: Annotated[Detect, _said("How look-ups are watched.")] | UnsetType = UNSET
    reference_values: (
        Annotated[ReferenceValues, _said("What evidence is compared with.")] | UnsetType
    ) = UNSET
    capabilities: (
        Annotated[list[Capability], Meta(min_length=1, description="Tokens for other services.")]
        | UnsetType
    ) = UNSET
    introspects: (
        Annotated[Texts, _said("Audiences whose tokens the app, which serves them, asks about.")]
        | UnsetType
    ) = UNSET


class DenyList(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deny source of many names (docs/lists.md)."""

    file: Annotated[str, _said("Its path, relative to this file.")]
    format: (
        Annotated[
            Literal["auto", "hosts", "plain", "adblock", "rpz"],
            _said("Its format. Default auto, which looks."),
        ]
        | UnsetType
    ) = UNSET
    refuse: Annotated[Refuse, _said("Beats the app's own.")] | UnsetType = UNSET
    except_: Annotated[Texts, _said("Names it does not deny, nor those below.")] | UnsetType = (
        msgspec.field(name="except", default=UNSET)
    )
    apps: (
        Annotated[
            list[Word], Meta(min_length=1, description="The apps that it covers; default all.")
        ]
        | UnsetType
    ) = UNSET


class RuleFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule file of Sallyport."""

    apps: Annotated[dict[Word, App], _said("Apps by name.")] | UnsetType = UNSET
    lists: Annotated[list[DenyList], Meta(min_length=1, description="Deny lists.")] | UnsetType = (
        UNSET
    )


class PackFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pack: allows that are shipped, each with a name."""

    allow: Annotated[list[Allow], Meta(min_length=1)]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a rule file, for editors and other tools."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | msgspec.json.schema(RuleFile)
