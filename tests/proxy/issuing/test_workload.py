"""The Workload API, asked by the client library `spiffe` and by a client that knows no manners."""

import asyncio
import contextlib
import datetime as dt
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from spiffe import SpiffeId, TrustDomain, WorkloadApiClient, X509Source
from spiffe.workloadapi.errors import (
    FetchJwtBundleError,
    FetchJwtSvidError,
    FetchX509BundleError,
    FetchX509SvidError,
    ValidateJwtSvidError,
)

from certs.domain import init_domain, load_domain
from proxy.certificates.file import RevocationFile
from proxy.certificates.revoked import FILE_NAME, Kind, Revocation
from proxy.channel import Event, Look, Trust
from proxy.config_identity import Federated
from proxy.issuing import federation, messages
from proxy.limits import Limits
from tests.proxy.issuing.desk import APP, ID, TRUST_DOMAIN, WAIT_S, Clock, Desk, settings

OTHER = f"spiffe://{TRUST_DOMAIN}/agent/other"
PARTNER = "partner.example"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("issuer")
    partner = folder / "partner"
    init_domain(partner, PARTNER, dt.datetime.now(dt.UTC), None)
    (folder / "partner.json").write_bytes(load_domain(partner, None).jwks())
    source = {PARTNER: Federated(file=str(folder / "partner.json"))}
    with Desk(settings(folder / "state", federation=source), Clock()) as running:
        running.ready()
        running.wait(Trust, lambda each: PARTNER in each.bundles)
        running.listen(folder / "coder.sock", ids=(ID, OTHER))
        running.listen(folder / "nobody.sock", app="unknown", ids=())
        yield running


def place(desk: Desk, name: str = "coder") -> Path:
    return Path(desk.settings.state).parent / f"{name}.sock"


@pytest.fixture
def client(desk: Desk) -> Iterator[WorkloadApiClient]:
    found = WorkloadApiClient(f"unix:{place(desk)}", default_timeout=WAIT_S)
    yield found
    found.close()


def test_the_real_client_fetches_svids_with_roots_and_keys(client: WorkloadApiClient) -> None:
    context = client.fetch_x509_context()
    assert [str(each.spiffe_id) for each in context.x509_svids] == [ID, OTHER]
    svid = context.default_svid
    assert len(svid.cert_chain) == 2
    assert svid.private_key.public_key() == svid.leaf.public_key()
    domains = {str(each.trust_domain.name) for each in context.x509_bundle_set.bundles}
    assert domains == {TRUST_DOMAIN, PARTNER}


def test_the_real_client_fetches_bundles(client: WorkloadApiClient) -> None:
    for name in (TRUST_DOMAIN, PARTNER):
        bundle = client.fetch_x509_bundles().get_bundle_for_trust_domain(TrustDomain(name))
        assert bundle is not None
        assert len(bundle.x509_authorities) == 1
        keys = client.fetch_jwt_bundles().get_bundle_for_trust_domain(TrustDomain(name))
        assert keys is not None
        assert len(keys.jwt_authorities) == 1


def test_the_real_client_fetches_and_validates_jwt_svids(client: WorkloadApiClient) -> None:
    svids = client.fetch_jwt_svids({"vault"})
    assert [str(each.spiffe_id) for each in svids] == [ID, OTHER]
    (one,) = client.fetch_jwt_svids({"vault"}, subject=SpiffeId(OTHER))
    assert str(one.spiffe_id) == OTHER
    assert str(client.validate_jwt_svid(one.token, "vault").spiffe_id) == OTHER
    with pytest.raises(ValidateJwtSvidError, match="for somebody else"):
        client.validate_jwt_svid(one.token, "bank")
    with pytest.raises(ValidateJwtSvidError, match="INVALID_ARGUMENT"):
        client.validate_jwt_svid(one.token[:-6] + "AAAAAA", "vault")


@pytest.mark.parametrize(
    "theirs", [f"spiffe://{TRUST_DOMAIN}/agent/boss", "spiffe://partner.example/a", ID + "/../boss"]
)
def test_another_ones_jwt_svid_is_refused_and_audited(desk: Desk, theirs: str) -> None:
    """threats.md, Identity: a name in a request is no credential."""
    request = messages.JWTSVIDRequest(audience=["vault"], spiffe_id=theirs)
    assert ask(desk, "FetchJWTSVID", request)[0] is Status.PERMISSION_DENIED
    event = desk.wait(Event, lambda each: each.change == "refused" and each.target == theirs)
    assert (event.app, event.allowed, event.reason) == (APP, False, "identity-unknown")


def test_a_caller_without_entitlement_gets_nothing_by_any_method(desk: Desk) -> None:
    nobody = WorkloadApiClient(f"unix:{place(desk, 'nobody')}", default_timeout=WAIT_S)
    token = WorkloadApiClient(f"unix:{place(desk)}").fetch_jwt_svid({"a"}).token
    for attempt, error in (
        (nobody.fetch_x509_svid, FetchX509SvidError),
        (nobody.fetch_x509_bundles, FetchX509BundleError),
        (lambda: nobody.fetch_jwt_svid({"a"}), FetchJwtSvidError),
        (nobody.fetch_jwt_bundles, FetchJwtBundleError),
        (lambda: nobody.validate_jwt_svid(token, "a"), ValidateJwtSvidError),
    ):
        with pytest.raises(error, match="PERMISSION_DENIED"):
            attempt()
    nobody.close()
    assert desk.wait(Event, lambda each: each.app == "unknown").change == "refused"


def ask(desk: Desk, method: str, request: object, header: str = "true") -> tuple[Status, str]:
    """The status of a call with any message, and its text."""

    async def once() -> tuple[Status, str]:
        channel = Channel(path=str(place(desk)))
        call: UnaryUnaryMethod[object, object] = UnaryUnaryMethod(
            channel, f"/SpiffeWorkloadAPI/{method}", type(request), object
        )
        try:
            await call(request, metadata={"workload.spiffe.io": header}, timeout=WAIT_S)
        except GRPCError as error:
            return error.status, error.message or ""
        finally:
            channel.close()
        return Status.OK, ""

    return asyncio.run(once())


@pytest.mark.parametrize("audience", [[], [""], ["a", ""], ["a"] * 17, ["x" * 2049]], ids=len)
def test_an_audience_is_named_and_within_bounds(desk: Desk, audience: list[str]) -> None:
    status, _ = ask(desk, "FetchJWTSVID", messages.JWTSVIDRequest(audience=audience))
    assert status is Status.INVALID_ARGUMENT


def test_the_security_header_is_exactly_true(desk: Desk) -> None:
    """A server that is made to send requests (SSRF) can set no such header."""
    for header in ("True", "1", "true,true"):
        status, text = ask(desk, "FetchJWTSVID", messages.JWTSVIDRequest(audience=["a"]), header)
        assert (status, text) == (
            Status.INVALID_ARGUMENT,
            "security header missing from request",
        )


def test_a_token_is_validated_for_an_audience(desk: Desk) -> None:
    for fields in ({"audience": "a"}, {"svid": "a.b.c"}, {"svid": "x", "audience": "a"}):
        request = messages.ValidateJWTSVIDRequest(**fields)
        assert ask(desk, "ValidateJWTSVID", request)[0] is Status.INVALID_ARGUMENT


NESTED: list[Any] = []
for _ in range(800):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "claims",
    [{"x": 10**400}, {"x": "\ud800"}, {"\ud800": 1}, {"aud": ["a", "\ud800"]}, {"x": NESTED}],
)
def test_a_claim_that_no_answer_can_hold_is_the_tokens_fault(
    desk: Desk, claims: dict[str, Any]
) -> None:
    """What another trust domain signs is no bug of ours."""
    key = jwt_key(desk)
    said = {"sub": f"spiffe://{PARTNER}/a", "aud": ["a"], "exp": time.time() + 60, **claims}
    token = jwt.encode(said, key[1], "ES256", headers={"kid": key[0]})
    request = messages.ValidateJWTSVIDRequest(audience="a", svid=token)
    status, text = ask(desk, "ValidateJWTSVID", request)
    assert status is Status.INVALID_ARGUMENT
    assert "a claim that no answer can hold" in text


def jwt_key(desk: Desk) -> tuple[str, ec.EllipticCurvePrivateKey]:
    """Return the JWT key of the partner, with its kid."""
    ((kid, key),) = load_domain(
        Path(desk.settings.state).parent / "partner", None
    )._jwt_keys.items()
    return kid, key


class Watching:
    """A real `X509Source`, and a clock that can be set forward."""

    def __init__(self, folder: Path, limits: Limits | None = None, **identity: object) -> None:
        self.clock = Clock()
        self.desk = Desk(settings(folder / "state", limits, **identity), self.clock).ready()
        path = self.desk.listen(folder / "w.sock")
        self._updated = threading.Condition()
        self.source = X509Source(socket_path=path, timeout_in_seconds=WAIT_S)
        self.source.subscribe_for_updates(self._notify)

    def _notify(self) -> None:
        with self._updated:
            self._updated.notify_all()

    @property
    def seen(self) -> tuple[int, tuple[str, ...]]:
        """The serial number and the IDs that the client has now."""
        context = self.source.get_x509_context()
        domains = [str(each.trust_domain.name) for each in context.x509_bundle_set.bundles]
        return context.default_svid.leaf.serial_number, tuple(sorted(domains))

    def until_other(self, than: object) -> tuple[int, tuple[str, ...]]:
        with self._updated:
            assert self._updated.wait_for(lambda: self.seen != than, WAIT_S)
        return self.seen

    def close(self) -> None:
        self.source.close()
        self.desk.close()


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    found = Watching(tmp_path)
    yield found
    found.close()


def test_a_stream_gets_a_new_svid_when_half_of_the_old_ones_life_is_over(
    watching: Watching,
) -> None:
    first = watching.seen
    watching.clock.ahead_s = 0.44 * 3600  # the jitter is a tenth
    watching.desk.send(Look())
    watching.desk.sign(ID)  # it has looked by now
    assert watching.seen == first
    watching.clock.ahead_s = 0.56 * 3600
    watching.desk.send(Look())
    second = watching.until_other(first)
    assert second[0] != first[0]


def test_a_stream_follows_what_the_rules_entitle_to(watching: Watching) -> None:
    first = watching.seen
    watching.desk.entitle(1, APP, (OTHER,))
    watching.until_other(first)
    assert str(watching.source.get_x509_context().default_svid.spiffe_id) == OTHER
    watching.desk.entitle(1, "", ())
    watching.desk.wait(Event, lambda each: each.change == "refused")


@pytest.mark.parametrize("kind", [Kind.SPIFFE_ID, Kind.APP])
def test_what_is_revoked_is_issued_no_more_and_its_stream_ends(
    watching: Watching, kind: Kind
) -> None:
    """threats.md, Identity: a revoked identity gets no other certificate."""
    state = Path(watching.desk.settings.state)
    revoked = Revocation(kind, APP if kind is Kind.APP else ID, 1.0)
    file = RevocationFile(state / FILE_NAME, Limits())
    asyncio.run(file.revoke((revoked,), 1.0))
    watching.desk.send(Look())
    event = watching.desk.wait(Event, lambda each: each.change == "refused")
    assert (event.reason, event.allowed) == ("revoked", False)
    with pytest.raises(FetchX509SvidError, match="revoked"):
        fresh_svid(state.parent / "w.sock")
    asyncio.run(file.restore(kind, revoked.value))
    watching.desk.send(Look())
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:  # the look takes its time
        with contextlib.suppress(FetchX509SvidError):
            assert fresh_svid(state.parent / "w.sock") == ID
            return
    pytest.fail("it is still revoked")


def fresh_svid(path: Path) -> str:
    client = WorkloadApiClient(f"unix:{path}")
    try:
        return str(client.fetch_x509_svid(timeout=WAIT_S).spiffe_id)
    finally:
        client.close()


def test_a_stream_gets_changed_bundles_with_the_svid_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federation, "FILE_S", 0.1)
    partner = tmp_path / "partner"
    source = Federated(file=str(tmp_path / "partner.json"))
    watching = Watching(tmp_path, federation={PARTNER: source})
    first = watching.seen
    assert first[1] == (TRUST_DOMAIN,)
    init_domain(partner, PARTNER, dt.datetime.now(dt.UTC), None)
    (tmp_path / "partner.json").write_bytes(load_domain(partner, None).jwks())
    second = watching.until_other(first)
    watching.close()
    assert second == (first[0], (TRUST_DOMAIN, PARTNER))


def test_an_app_that_asks_for_too_many_is_held_back_and_another_is_not(tmp_path: Path) -> None:
    limits = Limits(svids=3, svids_every_s=100.0)
    with Desk(settings(tmp_path / "state", limits), Clock()) as desk:
        desk.ready()
        desk.listen(tmp_path / "greedy.sock")
        desk.listen(tmp_path / "other.sock", app="other", ids=(OTHER,))
        greedy = WorkloadApiClient(f"unix:{tmp_path / 'greedy.sock'}", default_timeout=WAIT_S)
        for _ in range(3):
            greedy.fetch_x509_svid()
        with pytest.raises(FetchX509SvidError, match="RESOURCE_EXHAUSTED"):
            greedy.fetch_x509_svid()
        greedy.close()
        assert fresh_svid(tmp_path / "other.sock") == OTHER
        event = desk.wait(Event, lambda each: each.change == "bound")
        assert (event.app, event.target) == (APP, "svids")
