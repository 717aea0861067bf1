"""What is examined."""

from pathlib import Path

from proxy.doctor.patient import LISTENERS, STREAMS
from tests.proxy.patients import patient_in

LISTEN = """
listen:
  do53: ["127.0.0.1:5353"]
  dot: []
  doh: ["127.0.0.1:8443", "[::1]:8443"]
  proxy: []
  metrics: ["127.0.0.1:9153"]
"""


def test_every_configured_listener_is_named_with_its_kind(tmp_path: Path) -> None:
    assert patient_in(tmp_path, LISTEN).listeners() == [
        ("do53", "127.0.0.1:5353"),
        ("doh", "127.0.0.1:8443"),
        ("doh", "[::1]:8443"),
        ("metrics", "127.0.0.1:9153"),
    ]


def test_without_listeners_there_is_nothing_to_bind(tmp_path: Path) -> None:
    assert patient_in(tmp_path).listeners() == []


def test_only_do53_is_bound_on_udp_as_well() -> None:
    assert set(LISTENERS) - STREAMS == {"do53"}
