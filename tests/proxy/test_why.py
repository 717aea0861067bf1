import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import why
from proxy.audit_file import numbered
from proxy.audit_line import Record, encode
from proxy.errors import BindError
from proxy.flow import Plane
from proxy.why import Entry, as_json, audit_files, find, last, newest, rows
from rules.decision import Reason, Verdict


def entry(
    number: int, app: str = "coder", verdict: Verdict = Verdict.DENY, **detail: object
) -> bytes:
    """A line whose id ends in `number`."""
    return encode(
        Record(
            time="2026-11-22T01:02:03.000004Z",
            id=f"{number:032x}",
            flow=None,
            app=app,
            evidence=(),
            plane=Plane.DNS,
            fact="question",
            verdict=verdict,
            reason=Reason.HOST_NOT_LISTED,
            rule=None,
            generation=3,
            count=1,
            target=f"{number}.example A",
        ),
        detail,
    )


def written(folder: Path, *texts: bytes) -> tuple[Path, ...]:
    """Write one file of the series per text, the newest first."""
    file = folder / "audit.jsonl"
    for number, text in enumerate(texts):
        numbered(file, number).write_bytes(text)
    return audit_files(file)


def number(found: Entry | None) -> int | None:
    return None if found is None else int(found["id"], 16)


def test_finds_a_line_by_its_id_with_everything_in_it(tmp_path: Path) -> None:
    files = written(tmp_path, entry(1) + entry(2, name="2.example", type="A") + entry(3))
    found = find(files, f"{2:032x}")
    assert found is not None
    assert list(found.items()) == [
        ("time", "2026-11-22T01:02:03.000004Z"),
        ("id", f"{2:032x}"),
        ("flow", None),
        ("app", "coder"),
        ("evidence", []),
        ("plane", "dns"),
        ("fact", "question"),
        ("verdict", "deny"),
        ("reason", "host-not-listed"),
        ("rule", None),
        ("generation", 3),
        ("count", 1),
        ("target", "2.example A"),
        ("name", "2.example"),
        ("type", "A"),
    ]


def test_what_a_person_sees_moves_no_cursor(tmp_path: Path) -> None:
    """threats.md, "Evidence as a weapon": escape sequences in names shown to a person."""
    files = written(tmp_path, entry(1, name="a\x1b[2J\u202eb", walk=["\x9b"]))
    found = last(files)
    assert found is not None
    assert found["name"] == "a\x1b[2J\u202eb"
    assert rows(found)[-2:] == [("name", "a\\u001b[2J\\u202eb"), ("walk", '["\\u009b"]')]
    assert as_json(found).isprintable()
    assert json.loads(as_json(found)) == found


@pytest.mark.parametrize(
    "spelled",
    [
        "0192F3A000007000800000000000ABCD",
        "urn:uuid:0192f3a0-0000-7000-8000-00000000abcd",
        " 0192f3a0-0000-7000-8000-00000000abcd\n",
    ],
)
def test_takes_an_id_as_every_refusal_spells_it(tmp_path: Path, spelled: str) -> None:
    files = written(tmp_path, entry(0x0192F3A000007000800000000000ABCD))
    assert find(files, spelled) is not None


def test_follows_the_rotation(tmp_path: Path) -> None:
    files = written(tmp_path, entry(5), entry(3) + entry(4), entry(1) + entry(2))
    assert [number(find(files, f"{at:032x}")) for at in range(1, 6)] == [1, 2, 3, 4, 5]
    assert find(files, f"{6:032x}") is None


def test_the_end_of_a_flow_is_found_before_its_beginning(tmp_path: Path) -> None:
    files = written(tmp_path, entry(1, octets_up=5), entry(1))
    found = find(files, f"{1:032x}")
    assert found is not None
    assert found["octets_up"] == 5


def test_an_id_that_only_stands_in_a_detail_is_not_found(tmp_path: Path) -> None:
    files = written(tmp_path, entry(1, walk=[{"id": f"{9:032x}"}]))
    assert find(files, f"{9:032x}") is None


def test_the_last_refusal_or_failure_is_found(tmp_path: Path) -> None:
    files = written(
        tmp_path,
        entry(4, verdict=Verdict.ALLOW, walk=[{"verdict": "deny"}]),
        entry(1) + entry(2, verdict=Verdict.FAIL) + entry(3, verdict=Verdict.ALLOW),
    )
    assert number(last(files)) == 2


def test_the_last_refusal_of_one_app_is_found(tmp_path: Path) -> None:
    files = written(tmp_path, entry(1) + entry(2, "other", app_of="coder") + entry(3, "coder2"))
    assert number(last(files, "coder")) == 1
    assert number(last(files, "other")) == 2
    assert last(files, "nobody") is None


def test_another_apps_line_that_names_the_app_is_not_its_own(tmp_path: Path) -> None:
    files = written(tmp_path, entry(1, "other", walk={"app": "coder"}))
    assert last(files, "coder") is None


def test_nothing_is_found_where_nothing_stands(tmp_path: Path) -> None:
    assert last(written(tmp_path, b"")) is None
    assert last(()) is None


def test_lines_that_are_not_whole_or_not_ours_are_passed_over(tmp_path: Path) -> None:
    text = entry(1) + b'{"verdict":"deny"}\n' + b'"verdict":"deny"\n\n' + entry(2)[:-20]
    assert number(last(written(tmp_path, text))) == 1


def test_a_file_that_was_rotated_away_meanwhile_is_passed_over(tmp_path: Path) -> None:
    files = (tmp_path / "gone.jsonl", *written(tmp_path, entry(1)))
    assert number(last(files)) == 1


def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="ask as the user that sallyport runs as"):
        last((tmp_path,))


@settings(deadline=None, max_examples=50)
@given(st.integers(20, 400), st.integers(1, 20))
def test_every_line_is_found_wherever_blocks_begin(
    tmp_path_factory: pytest.TempPathFactory, octets: int, lines: int
) -> None:
    files = written(
        tmp_path_factory.mktemp("why"),
        b"".join(entry(at, more="x" * (at % 7)) for at in range(lines)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(why, "_BLOCK_OCTETS", octets)
        assert [number(find(files, f"{at:032x}")) for at in range(lines)] == list(range(lines))
        assert number(last(files)) == lines - 1


def test_a_line_without_end_costs_a_bounded_amount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(why, "_BLOCK_OCTETS", 100)
    monkeypatch.setattr(why, "_LINE_OCTETS", 1000)
    files = written(tmp_path, entry(1) + b"x" * 50_000 + b"\n" + entry(2))
    assert number(find(files, f"{1:032x}")) == 1
    assert number(find(files, f"{2:032x}")) == 2


def test_no_more_is_read_than_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = len(entry(1))
    monkeypatch.setattr(why, "_SCAN_OCTETS", 2 * one + one // 2)
    files = written(tmp_path, entry(5), entry(3) + entry(4), entry(2))
    assert [number(find(files, f"{at:032x}")) for at in (5, 4, 3, 2)] == [5, 4, None, None]


def test_the_newest_refusals_of_an_app_come_first(tmp_path: Path) -> None:
    older = b"".join(entry(each) for each in range(1, 5))
    mixed = entry(5, "other") + entry(6, verdict=Verdict.ALLOW) + entry(7, verdict=Verdict.FAIL)
    files = written(tmp_path, mixed, older)
    assert [number(each) for each in newest(files, "coder", 3)] == [7, 4, 3]
    assert newest(files, "nobody", 3) == []


def test_only_the_end_of_the_files_is_read_for_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = written(tmp_path, entry(2), entry(1))
    monkeypatch.setattr(why, "_GLANCE_OCTETS", len(entry(2)))
    assert [number(each) for each in newest(files, "coder", 9)] == [2]
