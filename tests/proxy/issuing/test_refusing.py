from certs.errors import CertsError
from proxy.issuing.refusing import BusyError, DeniedError, ElsewhereError
from rules.decision import Reason


def test_each_refusal_is_one_of_issuing_and_says_what_it_says() -> None:
    for kind in (DeniedError, BusyError, ElsewhereError):
        error = kind("do this")
        assert isinstance(error, CertsError)
        assert str(error) == "do this"


def test_the_reasons_of_a_denial_are_of_the_closed_list() -> None:
    assert Reason(DeniedError("no").reason) is Reason.IDENTITY_UNKNOWN
    assert Reason(DeniedError("no", "revoked").reason) is Reason.REVOKED
