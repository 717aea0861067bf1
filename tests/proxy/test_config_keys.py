"""The keys of sallyport.yaml are all optional."""

from msgspec import structs

from proxy.config_keys import AuditKeys, ConfigKeys, EgressKeys, ListenKeys, ResolverKeys


def test_every_key_is_optional() -> None:
    for keys in (AuditKeys, ConfigKeys, EgressKeys, ListenKeys, ResolverKeys):
        assert all(not field.required for field in structs.fields(keys))
