"""Generations of keys: published before they sign, kept while needed, and forgotten at once."""

import base64
import datetime as dt
from pathlib import Path

import pytest

from certs.domain import (
    Rotated,
    ensure_domain,
    init_domain,
    load_domain,
    rotate,
)
from certs.errors import IssueError, KeystoreError, SpiffeError
from certs.known_domain import DOMAIN_JSON, read_domain, record_of
from certs.profile import INTERMEDIATE, MOST_JWT_TTL_S, MOST_TTL_S, ROOT, SKEW_S
from certs.rotation import (
    JWT_KEY_LIFE_S,
    JWT_PREPARED_S,
    MOST_GENERATIONS,
    ROOT_PREPARED_S,
    What,
)
from tests.certs.identity import NOW, TD, WHO, contents, s, verified, whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "identity"
    init_domain(path, TD, NOW, None)
    return path


def test_the_intermediate_is_replaced_at_two_thirds_and_the_old_chain_stays_good(
    folder: Path,
) -> None:
    early = load_domain(folder, None)
    due = NOW + s(INTERMEDIATE.life_s * 2 / 3)
    assert not early.rotate_due(NOW + s(60))
    assert early.rotate_due(due)
    leaf = verified(early, due)
    made = ensure_domain(folder, TD, due, None)
    assert set(made.made) == {"intermediate", "jwt"}
    record = whole(folder)
    assert record.sequence == 2
    assert len(record.intermediates) == 2
    late = load_domain(folder, None)
    assert late.anchors == early.anchors
    new_leaf = verified(late, due)
    assert new_leaf.issuer != leaf.issuer
    signers = late.signers(due)
    assert [each.certificate.subject for each in signers] == [new_leaf.issuer, leaf.issuer]
    ended = due + s(MOST_TTL_S + SKEW_S + 1)
    assert late.rotate_due(ended)
    assert ensure_domain(folder, TD, ended, None).made == ()
    assert [each.id for each in whole(folder).intermediates] == [record.intermediates[1].id]


def test_a_new_jwt_key_is_published_before_it_signs(folder: Path) -> None:
    made = rotate(folder, NOW, None, "jwt")
    record = whole(folder)
    assert [each.id for each in record.jwt_keys][1] == made.id
    assert made.signs_from == NOW.timestamp() + JWT_PREPARED_S
    domain = load_domain(folder, None)
    assert made.id.encode() in domain.jwks()
    before, after = NOW + s(JWT_PREPARED_S - 1), NOW + s(JWT_PREPARED_S)
    old = domain.jwt(WHO, ("x",), before, 300)
    new = domain.jwt(WHO, ("x",), after, 300)
    assert record.jwt_keys[0].id in _header(old)
    assert made.id in _header(new)
    assert domain.check_jwt(old, "x", after, {}).spiffe_id == WHO
    gone = after + s(MOST_JWT_TTL_S + SKEW_S)
    assert load_domain(folder, None).rotate_due(gone)
    ensure_domain(folder, TD, gone, None)
    assert [each.id for each in whole(folder).jwt_keys] == [made.id]


def _header(token: str) -> str:
    head = token.split(".", maxsplit=1)[0]
    return base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)).decode()


def test_a_new_root_is_published_a_week_before_it_signs(folder: Path) -> None:
    old_leaf = verified(load_domain(folder, None), NOW)
    made = rotate(folder, NOW, None, "root")
    assert made.signs_from == NOW.timestamp() + ROOT_PREPARED_S
    waiting = load_domain(folder, None)
    assert len(waiting.anchors) == 2
    assert verified(waiting, NOW).issuer == old_leaf.issuer
    begin = NOW + s(ROOT_PREPARED_S)
    assert not waiting.rotate_due(begin - s(1))
    assert waiting.rotate_due(begin)
    assert ensure_domain(folder, TD, begin, None).made == ("intermediate",)
    record = whole(folder)
    assert record.intermediates[-1].issuer == made.id
    assert len(load_domain(folder, None).anchors) == 2
    verified(load_domain(folder, None), begin)
    gone = begin + s(MOST_TTL_S + SKEW_S)
    ensure_domain(folder, TD, gone, None)
    assert [each.id for each in whole(folder).roots] == [made.id]
    verified(load_domain(folder, None), gone)


def test_after_years_off_everything_is_made_anew(folder: Path) -> None:
    later = NOW + s(ROOT.life_s + 86400)
    with pytest.raises(IssueError, match="no intermediate of the trust domain is good"):
        load_domain(folder, None).issue(WHO, later)
    with pytest.raises(IssueError, match="no JWT key of the trust domain is good"):
        load_domain(folder, None).jwt(WHO, ("x",), later, 300)
    assert ensure_domain(folder, TD, later, None).made == ("root", "intermediate", "jwt")
    verified(load_domain(folder, None), later)
    load_domain(folder, None).jwt(WHO, ("x",), later, 300)


def test_a_clock_that_went_back_makes_nothing_and_says_so(folder: Path) -> None:
    earlier = NOW - dt.timedelta(days=400)
    assert ensure_domain(folder, TD, earlier, None) == Rotated()
    with pytest.raises(IssueError, match="correct the clock"):
        load_domain(folder, None).issue(WHO, earlier)
    with pytest.raises(IssueError, match="correct the clock"):
        rotate(folder, earlier, None, "intermediate")
    little = NOW - dt.timedelta(minutes=20)
    verified(load_domain(folder, None), little)
    load_domain(folder, None).jwt(WHO, ("x",), little, 300)


def test_forgetting_a_root_believes_nothing_of_before(folder: Path) -> None:
    before = record_of(folder)
    made = rotate(folder, NOW, None, "root", forget=True)
    record = whole(folder)
    assert [each.id for each in record.roots] == [made.id]
    assert made.signs_from == NOW.timestamp()
    assert [each.issuer for each in record.intermediates] == [made.id]
    assert record.jwt_keys == before.jwt_keys
    assert record.sequence == before.sequence + 1
    verified(load_domain(folder, None), NOW)


def test_forgetting_a_jwt_key_voids_its_tokens(folder: Path) -> None:
    old = load_domain(folder, None)
    token = old.jwt(WHO, ("x",), NOW, 300)
    assert not old.is_stale()
    rotate(folder, NOW, None, "jwt", forget=True)
    assert old.is_stale()
    new = load_domain(folder, None)
    assert len(whole(folder).jwt_keys) == 1
    with pytest.raises(SpiffeError, match="has no key"):
        new.check_jwt(token, "x", NOW, {})
    new.check_jwt(new.jwt(WHO, ("x",), NOW, 300), "x", NOW, {})


def test_an_intermediate_cannot_be_forgotten_alone(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(IssueError, match="forget the root"):
        rotate(folder, NOW, None, "intermediate", forget=True)
    assert contents(folder) == before


@pytest.mark.parametrize("what", ["root", "intermediate", "jwt"])
def test_generations_are_bounded(folder: Path, what: What) -> None:
    for _ in range(MOST_GENERATIONS - 1):
        rotate(folder, NOW, None, what)
    before = contents(folder)
    with pytest.raises(KeystoreError, match="wait until older ones end"):
        rotate(folder, NOW, None, what)
    assert contents(folder) == before
    assert len(before[DOMAIN_JSON]) < 65536
    known = read_domain(folder)
    assert known is not None
    assert known.sequence == MOST_GENERATIONS


def test_the_key_of_another_certificate_is_found_out(folder: Path) -> None:
    record = record_of(folder)
    one, other = record.intermediates[0].id, record.jwt_keys[0].id
    (folder / f"{one}.key").write_bytes((folder / f"{other}.key").read_bytes())
    with pytest.raises(KeystoreError, match="is not the key of its certificate"):
        load_domain(folder, None)


def test_jwt_keys_are_replaced_in_time(folder: Path) -> None:
    due = NOW + s(JWT_KEY_LIFE_S * 2 / 3)
    assert ensure_domain(folder, TD, due, None).made == ("jwt",)
    assert ensure_domain(folder, TD, due + s(JWT_PREPARED_S), None).made == ()
    load_domain(folder, None).jwt(WHO, ("x",), due, 300)
