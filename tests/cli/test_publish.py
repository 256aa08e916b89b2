"""`grip-edge publish`, by what it prints, returns and sends."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grip_edge_middleware.cli.status import FOUND_WRONG, OK, WRONG_USE
from tests.cli.shop import parse, runner
from tests.recording import Answer, RecordingServer

SECRET = "s3cr3t-t0ken"


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.mark.parametrize(
    ("words", "channel", "formats"),
    [
        (["ticks", '{"n": 1}'], "ticks", {"http-stream": {"content": 'data: {"n":1}\n\n'}}),
        (["ticks", "7"], "ticks", {"http-stream": {"content": "7"}}),
        (["ticks", '"7"'], "ticks", {"http-stream": {"content": '"7"'}}),
        (["ticks", "--hold", "ws", '{"n": 1}'], "ticks", {"ws-message": {"content": '{"n":1}'}}),
        (
            ["counter-{name}", "name=a b", "x", "--prev-id", "1", "--id", "2"],
            "counter-a%20b",
            {"http-stream": {"content": "x"}},
        ),
        (
            ["polled", "x", "--id", "2"],
            "polled",
            {"http-response": {"code": 200, "reason": "", "headers": {"Etag": '"2"'}, "body": "x"}},
        ),
    ],
)
def test_data_goes_out_as_the_edge_would_publish_it(
    words: list[str],
    channel: str,
    formats: dict[str, object],
    server: RecordingServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = runner(tmp_path, capsys, grip_url=server.url)

    status, out, _ = run("publish", "--json", *words)

    [item] = server.items
    assert status == OK
    assert parse(out)["channel"] == item["channel"] == channel
    item["formats"].get("http-response", {}).setdefault("reason", "")
    assert item["formats"] == formats


def test_every_proxy_is_told(
    server: RecordingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    regions = {"eu": {"grip_url": f"{server.url}/eu"}}
    run = runner(tmp_path, capsys, grip_url=server.url, regions=regions)

    status, out, _ = run("publish", "loose", "x")

    assert status == OK
    assert [request.path for request in server.requests] == ["/publish/", "/eu/publish/"]
    lines = out.splitlines()
    assert lines[0] == "publish loose to stream"
    assert lines[2].split() == ["grip", server.url, "acknowledged", "200", lines[2].split()[-1]]
    assert lines[3].startswith(f"eu grip {server.url}/eu")


def test_stdin_is_read(
    server: RecordingServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"data: \xc3\xa9\n\n")))
    run = runner(tmp_path, capsys, grip_url=server.url)

    run("publish", "loose", "-")

    assert server.items[0]["formats"]["http-stream"] == {"content": "data: é\n\n"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["counter-blue", "x"], "without --prev-id clients take it that they missed something"),
        (["counter-blue", "x", "--prev-id", "1"], "is no longer kept track of"),
        (["counter-blue", "x", "--prev-id", "1", "--id", "2"], ""),
        (["loose", "x"], ""),
        (["ticks", "x"], ""),
    ],
)
def test_what_comes_of_an_item_out_of_order_is_said(
    words: list[str],
    said: str,
    server: RecordingServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = runner(tmp_path, capsys, grip_url=server.url)

    _, out, _ = run("publish", *words)
    _, as_json, _ = run("publish", "--json", *words)

    assert ("warning: " in out) == bool(said)
    assert said in out
    assert len(parse(as_json)["warnings"]) == bool(said)


def test_a_refused_key_is_not_shown(
    server: RecordingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.respond = lambda request: Answer(401, {}, request.headers["authorization"].encode())
    run = runner(tmp_path, capsys, grip_url=f"{server.url}?key={SECRET}")

    for_people, for_programs = run("publish", "loose", "x"), run("publish", "--json", "loose", "x")

    assert for_people[0] == for_programs[0] == FOUND_WRONG
    assert "401: the key in grip_url is not accepted" in for_people[1]
    assert parse(for_programs[1])["targets"][0]["status"] == 401
    assert SECRET not in str((for_people, for_programs))


def test_a_dead_proxy_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runner(tmp_path, capsys, grip_url="http://127.0.0.1:9")

    status, out, _ = run("publish", "loose", "x")

    assert status == FOUND_WRONG
    assert "refused" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["", "x"], "the channel is empty"),
        (["a b", "x"], "spaces, commas and semicolons end a channel's name"),
        (["loose", "hello", "world"], '"hello": expected NAME=VALUE; does something lack its'),
        (["loose", "name=a", "x"], '"loose" takes no values'),
        (["counter-{name}", "x"], "takes name=...; given were none"),
        (["counter-{name}", "name=a", "name=b", "x"], '"name" has two values'),
        (["loose", "[NaN]"], "DATA: "),
    ],
)
def test_what_cannot_be_published_is_explained(
    words: list[str],
    said: str,
    server: RecordingServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = runner(tmp_path, capsys, grip_url=server.url)

    status, _, err = run("publish", *words)

    assert status == WRONG_USE
    assert said in err
    assert server.requests == []


def test_without_a_proxy_there_is_nobody_to_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = runner(tmp_path, capsys)("publish", "loose", "x")

    assert status == WRONG_USE
    assert "there is no GRIP proxy to publish to" in err
