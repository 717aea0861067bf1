"""Which SPIFFE IDs an app and a caller are entitled to."""

import os
from typing import override

import pytest

from proxy.identify import UNKNOWN
from proxy.limits import Limits
from proxy.transport.peer import SocketOwner
from proxy.workload.callers import Caller, Mark
from proxy.workload.entitle import NOTHING, Entitlement, Entitlements
from rules.decision import Decision, Reason, Verdict
from rules.facts import Evidence, Principal
from rules.ruleset import App, IdentityLine
from tests.proxy.workload.stand import DOMAIN, app, ruleset

ID = f"{DOMAIN}/coder"


class Named:
    """Names every process as one app."""

    def __init__(self, name: str = "coder") -> None:
        self.principal = Principal(name, (Evidence.PROCESS,)) if name else UNKNOWN
        self.asked: list[SocketOwner] = []

    def of_process(self, owner: SocketOwner) -> Principal:
        self.asked.append(owner)
        return self.principal

    def vouched(self, spiffe_id: str) -> Principal | Decision:
        return Decision(Verdict.DENY, Reason.IDENTITY_UNKNOWN, text=spiffe_id)


class Desk:
    """Entitlements, and what they met."""

    def __init__(self, *apps: App, name: str = "coder", most: int = 32) -> None:
        self.barred: set[str] = set()
        self.met: list[str] = []
        self.names = Named(name)
        self.entitlements = Entitlements(
            self.names,
            "sallyport.internal",
            lambda app, spiffe_id: bool({app, spiffe_id} & self.barred),
            Limits(workload_ids=most),
            self.met.append,
        )
        self.entitlements.use(ruleset(*apps))


def test_an_app_has_the_ids_of_its_lines_in_their_order_and_each_once() -> None:
    desk = Desk(app("coder", f"{DOMAIN}/b", f"{DOMAIN}/a", f"{DOMAIN}/b"), app("other", ID))
    assert desk.entitlements.of_app("coder") == Entitlement("coder", (f"{DOMAIN}/b", f"{DOMAIN}/a"))


@pytest.mark.parametrize(
    "foreign",
    [
        "spiffe://other.example/coder",
        "spiffe://sallyport.internal.example/coder",
        "spiffe://sub.sallyport.internal/coder",
    ],
)
def test_an_id_of_another_trust_domain_is_not_ours_to_give(foreign: str) -> None:
    assert Desk(app("coder", foreign, ID)).entitlements.of_app("coder").ids == (ID,)


def test_unknown_is_entitled_to_nothing_whatever_is_written() -> None:
    desk = Desk(app("unknown", ID), name="unknown")
    assert desk.entitlements.of_app("unknown") == NOTHING


def test_what_is_barred_is_left_out() -> None:
    desk = Desk(app("coder", ID, f"{DOMAIN}/b"))
    desk.barred.add(ID)
    assert desk.entitlements.of_app("coder").ids == (f"{DOMAIN}/b",)
    desk.barred.add("coder")
    assert desk.entitlements.of_app("coder") == Entitlement("coder")


def test_no_more_than_so_many_are_served() -> None:
    desk = Desk(app("coder", *(f"{DOMAIN}/{number}" for number in range(3))), most=2)
    assert desk.entitlements.of_app("coder").ids == (f"{DOMAIN}/0", f"{DOMAIN}/1")
    assert desk.met == ["workload_ids"]


def caller(uid: int = 1000) -> Caller:
    return Caller(4321, uid)


def test_the_caller_is_the_app_that_his_process_names() -> None:
    desk = Desk(app("coder", ID, uid=1000))
    assert desk.entitlements.of_caller(caller(), ()) == Entitlement("coder", (ID,))
    assert desk.names.asked == [SocketOwner(1000, 0, None)]


def test_root_is_whoever_the_rules_say() -> None:
    """threats.md, "Identity": root is no app by itself."""
    desk = Desk(app("coder", ID, uid=1000), name="")
    assert desk.entitlements.of_caller(caller(0), ()) == NOTHING


def test_our_own_processes_are_nobody_and_no_rule_is_asked() -> None:
    desk = Desk(app("coder", ID, uid=1000))
    assert desk.entitlements.of_caller(caller(), (1, 4321)) == NOTHING
    assert desk.names.asked == []


def test_one_without_a_number_here_is_not_taken_for_an_issuer_that_does_not_run() -> None:
    """pid_namespaces(7): the number of a process outside reads as 0; so does that of no issuer."""
    desk = Desk(app("coder", ID, uid=1000))
    outside = Caller(0, 1000)
    assert desk.entitlements.of_caller(outside, (os.getpid(), 0)) == Entitlement("coder", (ID,))


class Unreadable(Caller):
    """One of whom /proc tells what cannot be read."""

    has_called = False

    @override
    def look(self) -> Mark:
        if self.has_called:
            raise ValueError
        return Mark()


def test_one_who_cannot_be_looked_at_is_nobody() -> None:
    desk = Desk(app("coder", ID, cgroup="/a"))
    found = Unreadable(4321, 1000)
    found.has_called = True
    assert desk.entitlements.of_caller(found, ()) == NOTHING


def test_who_has_ended_is_nobody() -> None:
    desk = Desk(app("coder", ID, uid=os.getuid()))
    ended = os.fork()
    if ended == 0:
        os._exit(0)
    found = Caller(ended, os.getuid(), os.pidfd_open(ended))
    os.waitpid(ended, 0)
    assert desk.entitlements.of_caller(found, ()) == NOTHING
    found.close()


class Changed(Caller):
    """One who was something else when he called."""

    def __init__(self, now: Mark) -> None:
        self._now = Mark(1, (1, 1))
        super().__init__(4321, 1000)
        self._now = now

    @override
    def look(self) -> Mark:
        return self._now


@pytest.mark.parametrize(
    ("line", "now", "is_same"),
    [
        ({"uid": 1}, Mark(2, (2, 2)), True),
        ({"cgroup": "/a"}, Mark(1, (2, 2)), True),
        ({"cgroup": "/a"}, Mark(2, (1, 1)), False),
        ({"exe_sha256": "0"}, Mark(2, (1, 1)), True),
        ({"exe_sha256": "0"}, Mark(1, (1, 2)), False),
        ({"exe_sha256": "0"}, Mark(1, None), False),
        ({"exe_sha256": "0", "cgroup": "/a"}, Mark(1, (1, 1)), True),
        ({"exe_sha256": "0", "token": "t"}, Mark(2, (2, 2)), True),
    ],
)
def test_who_changes_in_what_the_rules_ask_for_is_not_the_same(
    line: dict[str, object], now: Mark, is_same: bool
) -> None:
    """threats.md, "Identity": connect, then exec another file, or leave the cgroup."""
    desk = Desk(App("coder", identity=(IdentityLine("a:1", **line),)))  # type: ignore[arg-type]  # what a case says
    assert desk.entitlements.is_same(Changed(now)) is is_same


def test_who_is_not_the_same_is_nobody() -> None:
    desk = Desk(app("coder", ID, cgroup="/a"))
    assert desk.entitlements.of_caller(Changed(Mark(2, (1, 1))), ()) == NOTHING


def test_who_cannot_be_told_is_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Named):
        @override
        def of_process(self, owner: SocketOwner) -> Principal:
            raise OSError(2, "the cgroup has gone meanwhile")

    desk = Desk(app("coder", ID, uid=1000))
    desk.entitlements._names = Broken()
    assert desk.entitlements.of_caller(caller(), ()) == NOTHING
    assert "cannot be told" in caplog.text
