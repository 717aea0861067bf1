"""The environment and resolv.conf, as they are found on desktops."""

from pathlib import Path

import pytest

from proxy.doctor.surroundings import proxy_variables, resolv_conf
from tests.proxy.patients import only, patient_in

LISTEN = (
    'listen: {do53: ["127.0.0.1:53", "127.0.0.1:5300"], proxy: ["127.0.0.1:3128", "[::1]:3128"]}\n'
)


@pytest.mark.parametrize(
    "value",
    [
        "http://proxy.corp.example:8080",
        "proxy.corp.example:8080",
        "http://127.0.0.1:3129",
        "socks5://127.0.0.1",
        "http://[broken",
    ],
)
@pytest.mark.parametrize("name", ["https_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_another_proxy_is_told(tmp_path: Path, name: str, value: str) -> None:
    finding = only(proxy_variables(patient_in(tmp_path, LISTEN, environ={name: value})))
    assert finding.severity == "warning"
    assert finding.message == f"{name} names another proxy: programs of this shell go past us"
    assert finding.cure == f"export {name}=http://127.0.0.1:3128"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"https_proxy": ""},
        {"https_proxy": "http://127.0.0.1:3128"},
        {"HTTP_PROXY": "127.0.0.1:3128"},
        {"all_proxy": "http://coder:secret@[::1]:3128/"},
        {"https_proxy": "http://localhost:3128"},
        {"no_proxy": "*", "PROXY": "http://192.0.2.1"},
    ],
)
def test_our_own_proxy_is_fine(tmp_path: Path, environ: dict[str, str]) -> None:
    assert list(proxy_variables(patient_in(tmp_path, LISTEN, environ=environ))) == []


def test_a_secret_in_a_proxys_url_is_not_shown(tmp_path: Path) -> None:
    environ = {"https_proxy": "http://me:hunter2@proxy.corp.example:8080"}
    finding = only(proxy_variables(patient_in(tmp_path, LISTEN, environ=environ)))
    assert "hunter2" not in finding.message + finding.cure


def test_without_a_proxy_listener_no_variable_matters(tmp_path: Path) -> None:
    environ = {"https_proxy": "http://192.0.2.1"}
    assert (
        list(proxy_variables(patient_in(tmp_path, "listen: {proxy: []}\n", environ=environ))) == []
    )


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("nameserver 192.0.2.53\nnameserver 2001:db8::53\n", "192.0.2.53, 2001:db8::53"),
        ("nameserver 127.0.0.53\noptions edns0\n", "127.0.0.53"),
    ],
)
def test_where_the_host_asks_is_for_information(tmp_path: Path, text: str, others: str) -> None:
    (tmp_path / "resolv.conf").write_text(text)
    finding = only(resolv_conf(patient_in(tmp_path, LISTEN, etc=tmp_path)))
    assert finding.severity == "info"
    assert f"ask {others}, not us" in finding.message


@pytest.mark.parametrize("text", ["", "nameserver\n", "# nameserver x\n", "nameserver 127.0.0.1\n"])
def test_a_host_that_asks_us_or_nobody_is_fine(tmp_path: Path, text: str) -> None:
    patient = patient_in(tmp_path, LISTEN, etc=tmp_path)
    assert list(resolv_conf(patient)) == []
    (tmp_path / "resolv.conf").write_text(text)
    assert list(resolv_conf(patient)) == []
