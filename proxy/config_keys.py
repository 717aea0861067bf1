"""sallyport.yaml as it is written: its keys and their types (docs/configuration.md)."""

from typing import Annotated

from msgspec import Meta, Struct

type Texts = Annotated[list[str], Meta(min_length=1)]


type Groups = Annotated[list[str | list[str]], Meta(min_length=1)]
"""One group of upstreams as a list, or several as a list of lists."""


class ListenKeys(Struct, forbid_unknown_fields=True):
    """`listen:` as it is written."""

    do53: list[str] | None = None
    dot: list[str] | None = None
    doh: list[str] | None = None
    proxy: list[str] | None = None
    proxy_tls: list[str] | None = None
    metrics: list[str] | None = None
    control: str | None = None
    control_group: str | None = None
    control_tls: list[str] | None = None
    workload: str | None = None
    ext_authz: str | None = None
    enroll: list[str] | None = None
    pki: list[str] | None = None


class ResolverKeys(Struct, forbid_unknown_fields=True):
    """`resolver:` as it is written."""

    upstreams: Groups | None = None
    zones: dict[str, Groups] | None = None
    upstream_ca: str | None = None


class EgressKeys(Struct, forbid_unknown_fields=True):
    """`egress:` as it is written."""

    upstream_ca: str | None = None
    upstream_proxy: str | None = None


class FederatedKeys(Struct, forbid_unknown_fields=True):
    """A trust domain of `identity.federation` as it is written."""

    file: str | None = None
    url: str | None = None
    ca: str | None = None


class OidcKeys(Struct, forbid_unknown_fields=True):
    """`identity.oidc` as it is written."""

    issuer: str
    client_id: str
    apps: dict[str, dict[str, str]]
    ca: str | None = None


class IdentityKeys(Struct, forbid_unknown_fields=True):
    """`identity:` as it is written."""

    trust_domain: str | None = None
    svid_ttl: int | str | None = None
    key_file: str | None = None
    federation: dict[str, FederatedKeys] | None = None
    workload_api: str | None = None
    oidc: OidcKeys | None = None
    admins: list[str] | None = None


class AttestationKeys(Struct, forbid_unknown_fields=True):
    """`attestation:` as it is written."""

    ttl: int | str | None = None
    ek_roots: list[str] | None = None


class SinkholeKeys(Struct, forbid_unknown_fields=True):
    """`sinkhole:` as it is written."""

    v4: str | None = None
    v6: str | None = None


class AuditKeys(Struct, forbid_unknown_fields=True):
    """`audit:` as it is written."""

    file: str | None = None
    rotate: int | str = 64 << 20
    keep: int = 16
    on_failure: str = "deny"


class ConfigKeys(Struct, forbid_unknown_fields=True):
    """sallyport.yaml as it is written."""

    listen: ListenKeys | None = None
    resolver: ResolverKeys | None = None
    egress: EgressKeys | None = None
    identity: IdentityKeys | None = None
    attestation: AttestationKeys | None = None
    sinkhole: SinkholeKeys | None = None
    rules: Texts | None = None
    state: str | None = None
    audit: AuditKeys | None = None
    limits: dict[str, int | float | str] | None = None
