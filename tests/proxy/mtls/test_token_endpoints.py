"""The endpoints of tokens as curl sees them, by every door: mistakes are told as OAuth has it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct, structs

from proxy.agent_api.asked import Caller
from proxy.attested.binding import of_key
from proxy.certificates.read import read_svid
from proxy.certificates.svid import Svid
from proxy.control.agent_api import MountedApi
from proxy.flow import Plane
from rules.decision import Decision, Reason, Verdict
from rules.facts import Evidence, Principal
from rules.ruleset import IdentityLine, Ruleset
from tests.certs.forgery import WHO, Forged
from tests.proxy.capabilities.stand import DOCS, RULES, Stand, standing
from tests.proxy.control_stand import standing as controlling
from tests.proxy.mtls.certified import Certified, certified

GRANT = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange"
KIND = "subject_token_type=urn:ietf:params:oauth:token-type:jwt"
SCOPE = "scope=documents:read"
AUDIENCE = f"audience={DOCS}"
DOORS = ("doh", "proxy_tls")


class Told(Struct, frozen=True):
    """An answer as curl has read it."""

    status: int
    media_type: str
    cache: str
    content: dict[str, object]


class Doors(Struct):
    """The planes of agents and the control API before one exchange of tokens."""

    it: Certified
    tokens: Stand
    forged: Forged
    control: Path

    async def curl(self, door: str, path: str, *arguments: str) -> Told:
        """Return the answer that curl gets by `door`."""
        places = {
            "doh": (*self._presented("--"), f"https://localhost:{self.it.ports['doh']}{path}"),
            "proxy_tls": (
                *("--proxy", f"https://localhost:{self.it.ports['proxy_tls']}"),
                *(*self._presented("--proxy-"), f"http://sallyport.internal{path}"),
            ),
            "proxy": (
                *("--proxy", f"http://127.0.0.1:{self.it.ports['proxy']}"),
                *("--proxy-user", "builder:spt_builder", f"http://sallyport.internal{path}"),
            ),
            "control": ("--unix-socket", str(self.control), f"http://localhost{path}"),
        }
        shown = "\n%{http_code} %{content_type} %header{cache-control}"
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "--noproxy", "", "--max-time", "10", "-w", shown),
            *(*places[door], *arguments),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == 0, err
        content, _, last = out.rpartition(b"\n")
        status, media_type, cache = last.decode().split(" ")
        return Told(int(status), media_type, cache, msgspec.json.decode(content))

    async def post(self, door: str, path: str, *parameters: str) -> Told:
        """Return the answer to a form."""
        return await self.curl(door, path, *(one for each in parameters for one in ("-d", each)))

    def result(self) -> str:
        """Return `subject_token=` of a new attestation result of the certificate's key."""
        svid = read_svid(self.forged.ders)
        assert isinstance(svid, Svid)
        principal = Principal("coder", (Evidence.CERTIFICATE,))
        caller = Caller(principal, Plane.DNS, "127.0.0.1:8443", svid, of_key(svid))
        return f"subject_token={self.tokens.attest(caller)}"

    def _presented(self, prefix: str) -> tuple[str, ...]:
        chain, key = self.it.files(self.forged)
        return (
            *(f"{prefix}cacert", str(self.it.ca)),
            *(f"{prefix}cert", str(chain), f"{prefix}key", str(key)),
        )


def _nobody(_: str) -> Decision:
    return Decision(Verdict.DENY, Reason.IDENTITY_UNKNOWN)


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    for name in ("tokens", "planes", "control"):
        (tmp_path / name).mkdir(mode=0o700)
    async with (
        standing(tmp_path / "tokens") as tokens,
        certified(tmp_path / "planes", api=tokens.api) as it,
        controlling(tmp_path / "control", tokens.limits) as control,
    ):
        control.agent_api = MountedApi(tokens.api, _nobody)
        known = structs.replace(RULES.apps["coder"], identity=(IdentityLine("f:1", spiffe=WHO),))
        tokens.ruleset = Ruleset(1, {**RULES.apps, "coder": known})
        yield Doors(it, tokens, it.court.forger.good(), control.path)


def is_oauth(told: Told, error: str, status: int = 400) -> bool:
    """Return whether it is an error as RFC 6749, section 5.2, has it, and says something."""
    return (told.status, told.media_type, told.cache, told.content["error"]) == (
        status, "application/json", "no-store", error,
    ) and told.content.keys() == {"error", "error_description"}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("target", [AUDIENCE, f"resource={DOCS}"])
async def test_a_token_is_exchanged_asked_about_and_revoked(
    doors: Doors, door: str, target: str
) -> None:
    told = await doors.post(door, "/token", GRANT, KIND, doors.result(), SCOPE, target)
    assert (told.status, told.media_type, told.cache) == (200, "application/json", "no-store")
    assert (told.content["token_type"], told.content["expires_in"]) == ("Bearer", 60)
    token = f"token={told.content['access_token']}"
    introspected = (await doors.post(door, "/introspect", token)).content
    assert (introspected["active"], introspected["aud"]) == (True, DOCS)
    assert (await doors.post(door, "/revoke", token)).content == {}
    assert (await doors.post(door, "/introspect", token)).content == {"active": False}


@pytest.mark.parametrize("door", DOORS)
async def test_what_is_malformed_is_said_as_oauth_has_it(doors: Doors, door: str) -> None:
    """RFC 6749, section 5.2, and RFC 8693, section 2.2.2."""
    good = (GRANT, KIND, doors.result(), SCOPE)
    cases = {
        ("a&b",): "invalid_request",
        ("%ff=1",): "invalid_request",
        ("x=y",): "invalid_request",
        ("grant_type=client_credentials",): "unsupported_grant_type",
        (*good, AUDIENCE, GRANT): "invalid_request",
        (GRANT, KIND, SCOPE, AUDIENCE): "invalid_request",
        (GRANT, KIND, "subject_token=x", SCOPE, AUDIENCE): "invalid_request",
        (GRANT, KIND, doors.result(), AUDIENCE): "invalid_scope",
        (*good, AUDIENCE, "actor_token_type=urn:ietf:params:oauth:token-type:jwt"): (
            "invalid_request"
        ),
        good: "invalid_target",
        (*good, "resource=https://nowhere.example"): "invalid_target",
        (*good, f"resource={DOCS}", AUDIENCE): "invalid_target",
        (GRANT, KIND, doors.result(), "scope=documents:delete", AUDIENCE): "invalid_scope",
    }
    for parameters, error in cases.items():
        told = await doors.post(door, "/token", *parameters)
        assert is_oauth(told, error), (parameters, told)
    for path in ("/introspect", "/revoke"):
        assert is_oauth(await doors.post(door, path, "token_type_hint=jwt"), "invalid_request")
    assert doors.tokens.exchange.all() == ()


@pytest.mark.parametrize("door", [*DOORS, "proxy", "control"])
@pytest.mark.parametrize("path", ["/token", "/introspect", "/revoke"])
async def test_json_is_no_form(doors: Doors, door: str, path: str) -> None:
    told = await doors.curl(
        door, path, "-H", "Content-Type: application/json", "-d", '{"token": "x"}'
    )
    assert is_oauth(told, "invalid_request"), told


@pytest.mark.parametrize("door", DOORS)
async def test_a_parameter_in_the_query_is_none(doors: Doors, door: str) -> None:
    """RFC 6749, section 3.2: parameters are in the content, a query is in logs."""
    told = await doors.post(door, f"/introspect?token={GRANT}", "x=y")
    assert is_oauth(told, "invalid_request")


@pytest.mark.parametrize("door", ["proxy", "control"])
async def test_where_nothing_is_bound_nothing_is_exchanged(doors: Doors, door: str) -> None:
    """threats.md, "Identity": an attestation token copied to another process."""
    form = (GRANT, KIND, doors.result(), SCOPE, AUDIENCE)
    assert is_oauth(await doors.post(door, "/token", *form), "invalid_client")
    assert doors.tokens.exchange.all() == ()
    assert (await doors.post(door, "/introspect", "token=x")).content == {"active": False}
