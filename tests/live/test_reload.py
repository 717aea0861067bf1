"""Rules change while it runs: what is withdrawn ends at once, and what stays is not disturbed."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.internet import Internet, until
from tests.live.appliance import Appliance, Folders, running

pytestmark = pytest.mark.live

CONFIG = """
listen:
  do53: ["127.0.0.1:5300", "127.0.0.1:5301"]
  dot: []
  doh: []
  proxy: ["127.0.0.1:3128", "127.0.0.1:3129"]
  proxy_tls: []
  metrics: ["127.0.0.1:9153"]
resolver: {{upstream_ca: {ca}}}
"""
APP = """
apps:
  {app}:
    identity: [{{listener: "127.0.0.1:{dns}"}}, {{listener: "127.0.0.1:{proxy}"}}]
    allow:
      - {{name: sites, host: [{hosts}], ports: [80, 443]}}
"""
ADDRESS = "93.184.215.14"  # of example.com, outside


class Rules:
    """The rule files of two apps, edited as editors do: written beside, and renamed."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def allow(self, app: str, *hosts: str) -> Path:
        dns, proxy = (5300, 3128) if app == "one" else (5301, 3129)
        return self.write(app, APP.format(app=app, dns=dns, proxy=proxy, hosts=", ".join(hosts)))

    def write(self, app: str, text: str) -> Path:
        beside = self._folders.rule(text, f".{app}.yaml.new")
        return beside.rename(self._folders.rules / f"{app}.yaml")


class World:
    """The appliance, its rules, and what an agent sees of it."""

    def __init__(self, internet: Internet, appliance: Appliance, rules: Rules) -> None:
        self.internet = internet
        self.appliance = appliance
        self.rules = rules

    def metric(self, name: str) -> int:
        page = self.internet.run(["curl", "-sS", "http://127.0.0.1:9153/metrics"]).stdout
        values = (line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(name))
        return int(float(next(values)))

    def is_in_force(self, generation: int) -> bool:
        return self.metric("sallyport_generation ") == generation

    def reloaded(self, generation: int) -> None:
        until(lambda: self.is_in_force(generation), f"generation {generation}")

    def ask(self, name: str, port: int = 5300) -> str:
        return self.internet.run(["kdig", "@127.0.0.1", "-p", str(port), "+edns", name]).stdout

    def denied_under(self) -> list[object]:
        lines = self.appliance.audit()
        return [line["generation"] for line in lines if line["verdict"] == "deny"]

    @contextlib.contextmanager
    def tunnel(self, port: int) -> Iterator[socket.socket]:
        with self.internet.agent.entered():
            client = socket.create_connection(("127.0.0.1", port), 5)
        with client:
            client.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            client.settimeout(10)
            yield client


@pytest.fixture
def world(internet: Internet, folders: Folders) -> Iterator[World]:
    folders.configure(CONFIG.format(ca=internet.ca))
    rules = Rules(folders)
    rules.allow("one", "example.com", "example.org")
    rules.allow("two", "example.com")
    with running(internet.agent, folders) as appliance:
        yield World(internet, appliance, rules)


def is_open(client: socket.socket) -> bool:
    """Say whether the other end still holds the connection; nothing is sent that ends it."""
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_an_answer_of_a_withdrawn_rule_is_refused_though_it_is_cached(world: World) -> None:
    """threats.md, Order of checks: policy after cache; a cache flush per file touch as a herd."""
    assert ADDRESS in world.ask("example.com")
    assert "NOERROR" in world.ask("example.org")
    misses = world.metric('sallyport_dns_cache_total{outcome="miss"}')
    world.rules.allow("one", "example.com")
    world.reloaded(2)
    refused = world.ask("example.org")
    assert "NXDOMAIN" in refused
    assert "host-not-listed" in refused
    assert ADDRESS in world.ask("example.com")
    assert world.metric('sallyport_dns_cache_total{outcome="miss"}') == misses
    assert world.metric('sallyport_dns_cache_total{outcome="renewed"}') == 1
    until(lambda: world.denied_under() == [2], "the refusal is in the audit")


def test_a_tunnel_of_a_withdrawn_rule_is_cut_and_another_apps_stays(world: World) -> None:
    """threats.md, Order of checks: tunnels of a withdrawn rule left open."""
    with world.tunnel(3128) as gone, world.tunnel(3129) as stays:
        world.rules.allow("one", "example.org")
        world.reloaded(2)
        until(lambda: not is_open(gone), "the tunnel is cut")
        assert is_open(stays)


def test_a_broken_file_keeps_the_last_good_rules_and_says_why(world: World) -> None:
    file = world.rules.write("one", "apps:\n  one:\n    alow: []\n")
    until(lambda: world.metric("sallyport_rule_problems ") == 1, "the problem is counted")
    assert f"{file}:3:5: error:" in world.appliance.stderr
    assert "did you mean `allow`?" in world.appliance.stderr
    assert "generation 1 stays in force" in world.appliance.stderr
    assert ADDRESS in world.ask("example.com")
    world.rules.allow("one", "example.org")
    world.reloaded(2)
    assert world.metric("sallyport_rule_problems ") == 0
    assert "NXDOMAIN" in world.ask("example.com")


def test_a_touched_file_changes_nothing(world: World) -> None:
    file = world.rules.allow("two", "example.com")
    file.touch()
    unchanged = 'sallyport_reloads_total{outcome="unchanged"}'
    until(lambda: world.metric(unchanged) >= 1, "the file was looked at")
    assert world.is_in_force(1)


def test_sighup_reads_the_rules_again(world: World) -> None:
    os.kill(world.appliance.ready.pid, signal.SIGHUP)
    unchanged = 'sallyport_reloads_total{outcome="unchanged"}'
    until(lambda: world.metric(unchanged) == 1, "the rules were read again")
    world.rules.allow("one", "example.org")
    os.kill(world.appliance.ready.pid, signal.SIGHUP)
    world.reloaded(2)
    assert world.appliance.process.poll() is None


def test_a_folder_that_goes_away_keeps_its_rules_and_one_that_comes_is_read(world: World) -> None:
    folder = world.appliance.folders.rules
    aside = folder.rename(folder.with_name("aside"))
    until(lambda: world.metric("sallyport_rule_problems ") == 1, "the folder is missed")
    assert ADDRESS in world.ask("example.com")
    aside.rename(folder)
    until(lambda: world.metric("sallyport_rule_problems ") == 0, "the folder is back")
    assert world.is_in_force(1)
    world.rules.allow("one", "example.org")
    world.reloaded(2)
