"""`sallyport metrics`: tokens of scrapers."""

import json
from pathlib import Path

import pytest

from tests.proxy.cli_desk import Desk, running


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_a_scrapers_token_opens_metrics_by_app_until_it_is_revoked(desk: Desk) -> None:
    async with running(desk) as stand:
        made = await desk.beside("metrics", "token")
        secret = made.stdout.strip()
        assert stand.tokens.scrapes(secret)
        assert "Prometheus" in made.stderr
        rotated = await desk.beside("metrics", "rotate", "--grace", "0s")
        assert not stand.tokens.scrapes(secret)
        assert stand.tokens.scrapes(rotated.stdout.strip())
        revoked = await desk.beside("metrics", "revoke")
        assert "scraper.2: revoked" in revoked.stderr
        assert not stand.tokens.scrapes(rotated.stdout.strip())


def test_scrapers_have_names(desk: Desk) -> None:
    desk.run("metrics", "token", "grafana", "--ttl", "1d")
    [found] = json.loads(desk.run("metrics", "list", "--json").stdout)
    assert (found["id"], found["purpose"]) == ("grafana.1", "scrape")
    assert "grafana.1" in desk.run("metrics", "list").stdout
