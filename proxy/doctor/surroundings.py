"""Checks of what surrounds us: the environment's proxies and the resolver of the host."""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from proxy.config import read_socket, write_socket
from proxy.doctor.patient import Finding, Patient

_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
_DNS_PORT = 53


def proxy_variables(patient: Patient) -> Iterator[Finding]:
    """Find variables that send this environment's programs to another proxy than ours."""
    ours = set(patient.settings.listen.proxy)
    if not ours:
        return
    for name, value in sorted(patient.environ.items()):
        if name.lower() in _PROXY_VARIABLES and value and _place(value) not in ours:
            where = min(ours)
            message = f"{name} names another proxy: programs of this shell go past us"
            yield Finding("warning", message, f"export {name}=http://{where}")


def _place(value: str) -> str:
    """Return `ADDRESS:PORT` of a proxy's URL, or "" where it is none; no decision hangs on it."""
    try:
        parts: SplitResult = urlsplit(value if "://" in value else f"http://{value}")
        host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
        return write_socket(ip_address(host), parts.port or 80)
    except ValueError:
        return ""


def resolv_conf(patient: Patient) -> Iterator[Finding]:
    """Tell where the host's own look-ups go; it is no fault that they go elsewhere."""
    try:
        text = (patient.etc / "resolv.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    servers = [line.split()[1] for line in text.splitlines() if _is_server(line)]
    ours = {read_socket(label) for label in patient.settings.listen.do53}
    reached = {str(address) for address, port in ours if port == _DNS_PORT}
    if servers and not reached & set(servers):
        message = f"programs without a setting of their own ask {', '.join(servers)}, not us"
        cure = (
            "let a listener stand on port 53 and name it in /etc/resolv.conf of what is confined;"
            " the host itself may stay as it is"
        )
        yield Finding("info", message, cure)


def _is_server(line: str) -> bool:
    words = line.split()
    return len(words) > 1 and words[0] == "nameserver"
