"""Our messages against the descriptors that the client library `spiffe` carries."""

from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from spiffe._proto import workload_pb2 as original

from proxy.issuing import messages

NAMES = sorted(original.DESCRIPTOR.message_types_by_name)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
octets = st.binary(max_size=60)
svids = st.fixed_dictionaries(
    {
        "spiffe_id": texts,
        "x509_svid": octets,
        "x509_svid_key": octets,
        "bundle": octets,
        "hint": texts,
    }
)


def same(ours: Any, theirs: Any) -> None:
    """Each reads what the other has written, and writes the same."""
    written = ours.SerializeToString(deterministic=True)
    assert written == theirs.SerializeToString(deterministic=True)
    assert type(theirs).FromString(written) == theirs
    assert type(ours).FromString(written) == ours


@pytest.mark.parametrize("name", NAMES)
def test_each_message_of_the_workload_api_has_the_original_fields(name: str) -> None:
    ours, theirs = (descriptor_pb2.DescriptorProto() for _ in range(2))
    getattr(messages, name).DESCRIPTOR.CopyToProto(ours)
    getattr(original, name).DESCRIPTOR.CopyToProto(theirs)
    for each in (*ours.field, *theirs.field, *ours.nested_type, *theirs.nested_type):
        each.ClearField("json_name") if hasattr(each, "json_name") else None
    found, wanted = (
        {(f.name, f.number, f.type, f.label, f.type_name) for f in each.field}
        for each in (ours, theirs)
    )
    assert found == wanted


@given(svids=st.lists(svids, max_size=3), crl=st.lists(octets, max_size=2),
       federated=st.dictionaries(texts, octets, max_size=3))  # fmt: skip
def test_x509_svids_are_the_same_on_the_wire(
    svids: list[dict[str, Any]], crl: list[bytes], federated: dict[str, bytes]
) -> None:
    fields: dict[str, Any] = {"svids": svids, "crl": crl, "federated_bundles": federated}
    same(messages.X509SVIDResponse(**fields), original.X509SVIDResponse(**fields))


@given(bundles=st.dictionaries(texts, octets, max_size=3), audience=st.lists(texts, max_size=3))
def test_bundles_and_jwt_requests_are_the_same_on_the_wire(
    bundles: dict[str, bytes], audience: list[str]
) -> None:
    same(
        messages.X509BundlesResponse(bundles=bundles), original.X509BundlesResponse(bundles=bundles)
    )
    same(messages.JWTBundlesResponse(bundles=bundles), original.JWTBundlesResponse(bundles=bundles))
    same(
        messages.JWTSVIDRequest(audience=audience, spiffe_id="a"),
        original.JWTSVIDRequest(audience=audience, spiffe_id="a"),
    )


@given(
    claims=st.dictionaries(
        texts,
        st.recursive(
            st.none() | st.booleans() | texts | st.integers(-(2**40), 2**40),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_claims_are_the_same_on_the_wire(claims: dict[str, Any]) -> None:
    ours = messages.ValidateJWTSVIDResponse(spiffe_id="spiffe://a/b")
    theirs = original.ValidateJWTSVIDResponse(spiffe_id="spiffe://a/b")
    ours.claims.update(claims)
    theirs.claims.update(claims)
    same(ours, theirs)


@given(st.binary(max_size=200))
def test_octets_are_read_or_refused_as_by_the_original(octets: bytes) -> None:
    for name in ("JWTSVIDRequest", "X509SVIDResponse", "ValidateJWTSVIDResponse"):
        results = []
        for module in (messages, original):
            try:
                message = getattr(module, name).FromString(octets)
                results.append(message.SerializeToString(deterministic=True))
            except DecodeError:
                results.append(None)
        assert results[0] == results[1]


def test_fields_that_we_do_not_know_are_passed_over() -> None:
    """Envoy sends many: `node` (2), a peer's address (1), headers (3)."""
    request = messages.DiscoveryRequest(resource_names=["ROOTCA"], type_url=messages.SDS_TYPE)
    found = messages.DiscoveryRequest.FromString(b"\x12\x03abc" + request.SerializeToString())
    assert list(found.resource_names) == ["ROOTCA"]


def test_a_table_that_is_wrong_is_noticed_at_once() -> None:
    message = descriptor_pb2.DescriptorProto(name="M")
    with pytest.raises(ValueError, match="is no field"):
        messages._field(message, "string name", "", "")
