"""The connection to the API: who is at the other end, and what he may say."""

import contextlib
import select
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.attester.api import Api, _read, _refused
from proxy.attester.certificate import trusting
from proxy.attester.errors import AttesterError, RefusedError, UnreachableError
from proxy.attester.place import Place, proxy_place
from tests.authority import PrivateAuthority
from tests.proxy.attester.verifier import Verifier, serving


def api_of(verifier: Verifier) -> Api:
    return Api(verifier.place, verifier.own.load().context)


def nonce_of(api: Api) -> Any:
    with api:
        return api.post("/attest/nonce", {}, dict)


def test_one_connection_takes_several_requests(verifier: Verifier) -> None:
    with api_of(verifier) as api:
        first = api.post("/attest/nonce", {}, dict)
        connection = api._connection.sock
        assert api.post("/attest/nonce", {}, dict) != first
        assert api._connection.sock is connection


def test_the_environments_proxy_sees_nothing(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert nonce_of(api_of(verifier))["expires_in"] == 60


def test_a_server_of_another_root_is_told_nothing(verifier: Verifier, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = PrivateAuthority(tmp_path / "other").certificate
    with pytest.raises(UnreachableError, match="not who --ca verifies"):
        nonce_of(Api(verifier.place, trusting(other)))
    assert not verifier.calls


def test_a_server_of_another_name_is_told_nothing(verifier: Verifier) -> None:
    place = Place("127.0.0.2", verifier.port, is_tls=True)
    with pytest.raises(UnreachableError):
        nonce_of(Api(place, verifier.own.load().context))
    assert not verifier.calls


def test_a_server_that_wants_a_certificate_is_a_refusal(verifier: Verifier) -> None:
    with pytest.raises(RefusedError, match="does not take our certificate") as caught:
        nonce_of(Api(verifier.place, trusting(verifier.authority.certificate)))
    assert (caught.value.status, caught.value.is_final) == (0, True)


def test_an_alert_that_came_while_we_wrote_is_still_heard(verifier: Verifier) -> None:
    with Api(verifier.place, trusting(verifier.authority.certificate)) as api:
        api._connection.connect()
        assert select.select([api._connection.sock], [], [], 10)[0]
        alert = api._alert()
        assert alert is not None
        assert isinstance(api._failed(alert), RefusedError)


def test_without_an_alert_nothing_is_heard(verifier: Verifier) -> None:
    with api_of(verifier) as api:
        assert api._alert() is None
        api._connection.connect()
        assert api._alert() is None


def test_a_port_without_tls_is_not_spoken_to(tmp_path: Path) -> None:
    with serving(Verifier(tmp_path), plain=True) as verifier, pytest.raises(UnreachableError):
        nonce_of(api_of(verifier))


def test_nobody_there_says_what_to_look_at(tmp_path: Path) -> None:
    verifier = Verifier(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        verifier.port = taken.getsockname()[1]
    with pytest.raises(UnreachableError, match="is the appliance up"):
        nonce_of(api_of(verifier))


def test_a_proxy_is_asked_in_absolute_form_for_our_name(tmp_path: Path) -> None:
    with serving(Verifier(tmp_path), plain=True) as verifier:
        place = proxy_place(f"http://127.0.0.1:{verifier.port}", is_plain=True)
        assert nonce_of(Api(place))["expires_in"] == 60
        assert verifier.hosts == ["sallyport.internal"]


def test_a_problem_tells_reason_text_and_what_to_do(verifier: Verifier) -> None:
    told = {"title": "t", "detail": "the nonce is used", "reason": "attestation-required"}
    verifier.answers["/attest/nonce"] = (403, told | {"how": "ask for a new one"})
    with pytest.raises(RefusedError) as caught:
        nonce_of(api_of(verifier))
    assert caught.value.reason == "attestation-required"
    text = "refused (403): attestation-required: the nonce is used; ask for a new one"
    assert str(caught.value) == text


def test_an_oauth_error_tells_its_word_and_description(verifier: Verifier) -> None:
    told = {"error": "invalid_scope", "error_description": "no rule gives it"}
    verifier.answers["/token"] = (400, told)
    with api_of(verifier) as api, pytest.raises(RefusedError, match="no rule gives it") as caught:
        api.post_form("/token", {"scope": "x"}, dict)
    assert caught.value.reason == "invalid_scope"


def test_an_answer_without_an_end_is_bounded(verifier: Verifier) -> None:
    verifier.answers["/attest/nonce"] = (200, b" " * 70000)
    with pytest.raises(UnreachableError, match="more than 65536 octets"):
        nonce_of(api_of(verifier))


def test_a_redirect_is_not_followed(verifier: Verifier) -> None:
    verifier.answers["/attest/nonce"] = (307, b"")
    with pytest.raises(RefusedError):
        nonce_of(api_of(verifier))
    assert verifier.calls == ["/attest/nonce"]


def test_a_server_that_hangs_up_is_unreachable(verifier: Verifier) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = Place("localhost", listening.getsockname()[1], is_tls=True)

        def hang_up() -> None:
            listening.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(UnreachableError):
            nonce_of(Api(place, verifier.own.load().context))
        thread.join()


@given(st.integers(300, 599), st.binary(max_size=200))
def test_any_refusal_is_for_a_terminal(status: int, octets: bytes) -> None:
    error = _refused(status, octets)
    assert str(error).isprintable()
    assert error.status == status


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_problem_is_for_a_terminal(detail: str, how: str) -> None:
    content = msgspec.json.encode({"detail": detail, "how": how, "reason": "\x1b[2J"})
    error = _refused(403, content)
    assert str(error).isprintable()
    assert error.reason.isprintable()


@given(st.binary(max_size=200))
def test_any_answer_is_read_or_an_error_of_ours(octets: bytes) -> None:
    with contextlib.suppress(AttesterError):
        assert isinstance(_read(octets, dict), dict)


def test_tls_errors_without_an_alert_are_no_refusal(verifier: Verifier) -> None:
    error = ssl.SSLError(1, "[SSL] wrong version number")
    assert isinstance(api_of(verifier)._failed(error), UnreachableError)
