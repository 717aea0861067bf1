"""Whom we ask and dial through: made from the settings, and never ourselves."""

import pytest
from msgspec.structs import replace

from proxy.config import Locations, Settings, read_config
from proxy.errors import ConfigError
from proxy.metrics import Metrics
from proxy.outward import parent_of, refuse_circles, upstreams_of
from proxy.transport.own import OwnSockets
from rules.address import parse_address
from rules.text import SourceText


def settings_of(text: str) -> Settings:
    settings, problems = read_config(SourceText("f", text), Locations("/c", "/s", "/r"))
    assert problems == []
    return settings


def own(*sockets: tuple[str, int]) -> OwnSockets:
    return OwnSockets({(parse_address(address), port) for address, port in sockets}, set())


def test_upstreams_and_zones_are_those_of_the_settings() -> None:
    settings = settings_of(
        'resolver: {upstreams: ["udp://192.0.2.1"], zones: {a.example: ["udp://192.0.2.2"]}}'
    )
    made = upstreams_of(settings, Metrics(), own())
    assert sorted(str(each.address) for each in made.addresses) == ["192.0.2.1", "192.0.2.2"]


def test_trust_anchors_that_cannot_be_read_are_said() -> None:
    settings = settings_of('resolver: {upstreams: ["tls://192.0.2.1#a.example"], upstream_ca: no}')
    with pytest.raises(ConfigError, match="upstream_ca"):
        upstreams_of(settings, Metrics(), own())


def test_an_upstream_that_is_our_own_listener_is_refused() -> None:
    settings = settings_of('resolver: {upstreams: ["udp://127.0.0.1:5300"]}')
    made = upstreams_of(settings, Metrics(), own())
    refuse_circles(own(("127.0.0.1", 5301)), made, None)
    with pytest.raises(ConfigError, match="our own listener"):
        refuse_circles(own(("127.0.0.1", 5300)), made, None)


def test_a_parent_that_is_our_own_listener_is_refused() -> None:
    settings = settings_of('resolver: {upstreams: ["udp://192.0.2.1"]}')
    assert parent_of(settings) is None
    parent = parent_of(replace(settings, upstream_proxy="http://127.0.0.1:3128"))
    made = upstreams_of(settings, Metrics(), own())
    refuse_circles(own(("127.0.0.1", 3129)), made, parent)
    with pytest.raises(ConfigError, match="upstream_proxy"):
        refuse_circles(own(("127.0.0.1", 3128)), made, parent)
