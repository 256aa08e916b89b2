"""`grip-edge check` and `explain` on real Pushpin and Varnish."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from board import Board, Wired, board

from grip_edge_middleware.cli import main
from grip_edge_middleware.cli.status import OK

pytestmark = [pytest.mark.live, pytest.mark.both_edges, pytest.mark.real_edge]


@pytest.fixture
def served(unwired: Wired, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    with board(unwired) as served:
        module = ModuleType("app_of_command_line")
        module.settings = served.settings  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        yield served


@pytest.mark.parametrize("kind", ["board", "poll"])
def test_a_page_is_found_cached_held_and_purged(
    kind: str, served: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    url = served.edge.url + served.page(kind, "checked").path

    status = main(["check", "--app", "app_of_command_line:settings", "--url", url, "--json"])

    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [f["level"] for f in findings if f["about"] == url] == ["ok"] * 5
    assert not [f for f in findings if f["level"] == "wrong"]
    assert status == OK


def test_what_pushpin_takes_off_is_explained(
    served: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    page = served.page("board", "explained")

    through = main(["explain", served.edge.url + page.path, "--json"])
    behind = main(
        ["explain", served.edge.cache_url + page.path, "--header", "Grip-Sig: x", "--json"]
    )

    held, told = map(json.loads, capsys.readouterr().out.splitlines())
    assert through == behind == OK
    assert (held["hold"], held["channels"], held["cache"]["state"]) == ("open", [], "miss")
    assert told["hold"] == "stream"
    assert told["channels"][0]["prev_id"]
