"""The interface between listeners and issuer is the one that the issuer has."""

import inspect

from proxy.issuing.authority import BY_CERTIFICATE, BY_OIDC, BY_TOKEN, ENROLLED, Authority, Known
from proxy.issuing.issuer import Issuer


def test_the_issuer_has_everything_that_the_listeners_ask_for() -> None:
    wanted = [name for name in vars(Authority) if not name.startswith("_")]
    assert [name for name in wanted if not hasattr(Issuer, name)] == []
    for name in wanted:
        asked, given = vars(Authority)[name], inspect.getattr_static(Issuer, name)
        if inspect.isfunction(asked):
            assert list(inspect.signature(asked).parameters) == list(
                inspect.signature(given).parameters
            )


def test_what_the_workload_api_issues_is_no_enrolment() -> None:
    assert {BY_TOKEN, BY_OIDC, BY_CERTIFICATE} == ENROLLED
    assert "workload" not in ENROLLED
    known = Known(1, "spiffe://desk.example/a", "a", "00", 5, BY_TOKEN)
    assert known.how in ENROLLED
