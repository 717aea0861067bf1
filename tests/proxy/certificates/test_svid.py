"""The values that certificates come to."""

from msgspec import structs

from proxy.certificates.svid import Svid, Unfit


def test_equal_certificates_are_equal_values() -> None:
    one = Svid("spiffe://desk.example/a", "4d", 1, 2, "00")
    assert one == structs.replace(one)
    assert one != structs.replace(one, serial="4e")
    assert {one, structs.replace(one)} == {one}


def test_what_is_unfit_says_why() -> None:
    assert Unfit("it is an authority's").text == "it is an authority's"
