"""Where to attest: one spelling of an address each."""

import pytest

from proxy.attester.errors import UnusableError
from proxy.attester.place import OURS, Place, api_place, proxy_place


def test_a_listener_is_asked_for_paths() -> None:
    assert api_place("https://localhost:8443/") == Place("localhost", 8443, is_tls=True)
    assert api_place("https://[::1]:8443") == Place("::1", 8443, is_tls=True)
    assert api_place("https://127.0.0.1") == Place("127.0.0.1", 443, is_tls=True)


def test_a_proxy_is_asked_for_our_own_name() -> None:
    place = proxy_place("https://127.0.0.1:3129", is_plain=False)
    assert place == Place("127.0.0.1", 3129, is_tls=True, prefix=OURS)
    place = proxy_place("http://127.0.0.1:3128", is_plain=True)
    assert place == Place("127.0.0.1", 3128, is_tls=False, prefix=OURS)


def test_a_plain_port_is_for_leases_alone() -> None:
    with pytest.raises(UnusableError, match="write https://"):
        proxy_place("http://127.0.0.1:3128", is_plain=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1",
        "https://localhost:1/path",
        "https://user:word@localhost:1",
        "https://localhost:0",
        "https://localhost:1?q",
        "https://localhost:1#f",
        "localhost:1",
        "https://0x7f.1",
        "https://[::1",
        "https://ä:1",
        "",
    ],
)
def test_another_spelling_of_an_address_is_refused(url: str) -> None:
    with pytest.raises(UnusableError, match="no address to attest at"):
        api_place(url)
