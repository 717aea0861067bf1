"""What is known of a registered secret, which is never its value."""

import msgspec
import pytest

from proxy.canaries.secret import Kept, Kind, Secret, UnknownSecretError, WantedSecret, too_long
from tests.rules.test_secret_scan import key_of

VALUE = key_of(7)


def test_a_value_stands_in_no_text_of_it() -> None:
    wanted = WantedSecret("deploy-key", VALUE, Kind.CANARY)
    kept = Kept(VALUE, {"deploy-key": Secret("deploy-key", Kind.SECRET, 1.0, 0)}, {})
    for text in (repr(wanted), str(wanted), repr(kept), f"{kept}"):
        assert "deploy-key" in text
        assert VALUE.decode() not in text
        assert repr(VALUE) not in text


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a b", "a.b", "x" * 64, "é"])
def test_a_name_is_what_a_rule_may_be_called(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": name, "value": b"x"}, WantedSecret)
    assert msgspec.convert({"name": "x" * 63, "value": b"x"}, WantedSecret).kind is Kind.SECRET


def test_what_is_wrong_is_said_with_the_cure_and_without_the_value() -> None:
    assert "limits.secret_octets" in str(too_long(9))
    assert "sallyport secrets list" in str(UnknownSecretError())
