"""Profiles: what each may be used for, and how long."""

from certs.profile import (
    ADMIN,
    INSPECTION,
    INTERMEDIATE,
    LEAST_TTL_S,
    MOST_TTL_S,
    PROFILES,
    ROOT,
    SERVER,
    SVID,
    SVID_TTL_S,
)


def test_each_profile_is_found_by_its_name() -> None:
    assert set(PROFILES) == {"root", "intermediate", "svid", "admin", "server", "inspection"}
    assert all(profile.name == name for name, profile in PROFILES.items())


def test_authorities_sign_certificates_and_nothing_else_does() -> None:
    signing = {name for name, each in PROFILES.items() if "key_cert_sign" in each.usages}
    assert signing == {"root", "intermediate"}
    assert {name for name, each in PROFILES.items() if each.path_length is not None} == signing
    assert (ROOT.path_length, INTERMEDIATE.path_length) == (1, 0)


def test_an_svid_is_good_for_both_ends_of_a_connection() -> None:
    assert SVID.purposes == ("client_auth", "server_auth")
    assert SVID.usages == ("digital_signature",)
    assert (SVID.life_s, SVID.least_s, SVID.most_s) == (SVID_TTL_S, LEAST_TTL_S, MOST_TTL_S)
    assert (SVID_TTL_S, LEAST_TTL_S, MOST_TTL_S) == (3600, 300, 86400)


def test_who_administers_serves_nobody_and_who_serves_is_no_client() -> None:
    assert ADMIN.purposes == ("client_auth",)
    assert SERVER.purposes == INSPECTION.purposes == ("server_auth",)
    assert {name for name, each in PROFILES.items() if each.is_svid} == {"svid", "admin"}


def test_every_life_lies_within_its_bounds() -> None:
    assert all(each.least_s <= each.life_s <= each.most_s for each in PROFILES.values())
    assert INTERMEDIATE.life_s > 30 * SVID.most_s
