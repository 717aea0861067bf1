"""Second-tier lists come in as texts, with comments, and cover what stands below a suffix."""

from importlib import resources
from pathlib import Path

import pytest

from rules.errors import MalformedNameError
from rules.name import parse
from rules.subname import Splitter
from rules.suffix import read_suffixes
from rules.tiers import NO_TIERS, ORDINARY, PRIVATE, read_tiers

SHIPPED = Path(__file__).parents[2] / "rules" / "tiers"


def test_a_suffix_is_of_the_list_that_holds_it_or_what_is_above() -> None:
    tiers = read_tiers({"cdn": "# why\nexample.net  # theirs\n\n", "dnsbl": "bl.example\n"})
    assert tiers.of(parse("example.net")) == "cdn"
    assert tiers.of(parse("customer.example.net")) == "cdn"
    assert tiers.of(parse("zen.bl.example")) == "dnsbl"
    assert tiers.of(parse("badexample.net")) == ORDINARY
    assert NO_TIERS.of(parse("example.net")) == ORDINARY


def test_the_first_list_that_holds_a_suffix_has_it() -> None:
    assert read_tiers({"a": "example.net", "b": "example.net"}).of(parse("example.net")) == "a"


def test_a_line_that_is_no_name_is_an_error() -> None:
    with pytest.raises(MalformedNameError):
        read_tiers({"cdn": "https://example.net/"})


def test_the_lists_that_we_ship_can_be_read_and_say_why() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in SHIPPED.glob("*.txt")}
    assert set(texts) >= {"cdn", "storage", "dnsbl", "telemetry", "antivirus"}
    lists = read_tiers(texts).lists
    assert all("." in name for name in lists)
    for title, text in texts.items():
        assert text.startswith("# "), title
        groups = [group for group in text.split("\n\n") if group.strip()]
        assert all(group.lstrip().startswith("#") for group in groups), title


def test_the_names_of_a_private_network_are_for_its_own_resolver_to_see() -> None:
    assert NO_TIERS.of(parse("cluster.local")) == PRIVATE
    assert NO_TIERS.of(parse("ip-10-0-0-1.compute.internal")) == PRIVATE
    assert NO_TIERS.of(parse("local.example")) == ORDINARY


def test_what_is_shipped_is_what_somebody_registered() -> None:
    """A name below that would never be asked for: suffixes are asked for."""
    data = resources.files("publicsuffixlist") / "public_suffix_list.dat"
    splitter = Splitter(read_suffixes(data.read_text(encoding="utf-8").splitlines()))
    for file in SHIPPED.glob("*.txt"):
        for name in read_tiers({file.stem: file.read_text()}).lists:
            assert splitter.split(name)[0][0] == name, file.stem
