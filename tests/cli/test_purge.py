"""`grip-edge purge`, by what it prints, returns and sends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grip_edge_middleware.cli.status import FOUND_WRONG, OK, WRONG_USE
from tests.cli.shop import parse, runner
from tests.recording import Answer, RecordingServer

SECRET = "s3cr3t-t0ken"


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


def varnish(server: RecordingServer) -> str:
    return server.url.replace("http", "varnish")


def fastly(server: RecordingServer) -> dict[str, Any]:
    return {"fastly": {"service_id": "abc", "token": SECRET, "url": server.url}}


def test_every_cdn_is_asked_in_the_order_of_the_tiers(
    server: RecordingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    regions = {"eu": {"cdn": fastly(server)}}
    run = runner(tmp_path, capsys, cdn=varnish(server), regions=regions)

    status, out, _ = run("purge", "pages")

    assert status == OK
    assert [request.method for request in server.requests] == ["PURGEKEYS", "POST"]
    assert [request.keys for request in server.requests] == [["pages"], ["pages"]]
    lines = out.splitlines()
    assert lines[0] == "purge pages"
    assert lines[2].split()[:4] == ["varnish", server.url, "acknowledged", "200"]
    assert lines[3].split()[:5] == ["eu", "fastly", "abc", "acknowledged", "200"]


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["counter-{name}", "name=a b"], ["counter-a%20b", "counter-%any"]),
        (["counter-blue"], ["counter-blue", "counter-%any"]),
        (["one", "two", "one"], ["one", "two"]),
        (["--all"], ["%all"]),
        (["café"], ["caf%C3%A9"]),
        (["%row:post:7"], ["%row:post:7"]),
    ],
)
def test_what_is_named_is_purged_as_a_change_of_it_would(
    words: list[str],
    keys: list[str],
    server: RecordingServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = runner(tmp_path, capsys, cdn=varnish(server))

    status, out, _ = run("purge", "--json", *words)

    assert status == OK
    assert parse(out)["keys"] == server.requests[0].keys == keys


@pytest.mark.parametrize(("flag", "is_hard"), [("--soft", False), ("--hard", True)])
def test_how_it_purges_can_be_said(
    flag: str,
    is_hard: bool,
    server: RecordingServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cdn = {"varnish": {"url": server.url, "soft": is_hard}}
    run = runner(tmp_path, capsys, cdn=cdn)

    run("purge", flag, "pages")

    assert ("xkey-hard" in server.requests[0].headers) == is_hard


def test_a_refused_token_is_not_shown(
    server: RecordingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.respond = lambda request: Answer(401, {}, request.headers["fastly-key"].encode())
    run = runner(tmp_path, capsys, cdn=fastly(server))

    for_people, for_programs = run("purge", "pages"), run("purge", "--json", "pages")

    assert for_people[0] == for_programs[0] == FOUND_WRONG
    assert "401: the token is not valid for this service" in for_people[1]
    [target] = parse(for_programs[1])["targets"]
    assert (target["target"], target["status"]) == ("fastly abc", 401)
    assert SECRET not in str((for_people, for_programs))


def test_one_that_is_dead_keeps_no_other_from_being_asked(
    server: RecordingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runner(tmp_path, capsys, cdn=["varnish://127.0.0.1:9", varnish(server)])

    status, out, _ = run("purge", "--json", "pages")

    assert status == FOUND_WRONG
    dead, alive = parse(out)["targets"]
    assert "refused" in dead["error"]
    assert dead["status"] is None
    assert (alive["error"], alive["status"]) == ("", 200)


def test_one_that_says_nothing_is_given_up(
    server: RecordingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.respond = lambda request: Answer(hangs=True)
    run = runner(tmp_path, capsys, cdn=varnish(server), timeout=0.1)

    status, out, _ = run("purge", "pages")

    assert status == FOUND_WRONG
    assert "no answer within 0.1 s" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "what is to be purged? name a key, or say --all"),
        ([""], "a key is empty"),
        (["two keys"], "write two%20keys, as edge.tag does"),
        (["one,two"], "spaces and commas separate keys"),
        (["name=blue"], 'there is no topic such as "counter-{name}" before it'),
        (["counter-{name}"], 'topic "counter-{name}" takes name=...; given were none'),
        (["score-{id}", "id=1"], 'no topic is named "score-{id}"'),
    ],
)
def test_what_cannot_be_a_key_is_explained(
    words: list[str],
    said: str,
    server: RecordingServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = runner(tmp_path, capsys, cdn=varnish(server))

    status, _, err = run("purge", *words)

    assert status == WRONG_USE
    assert said in err
    assert server.requests == []


def test_without_a_cdn_there_is_nothing_to_purge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = runner(tmp_path, capsys)("purge", "pages")

    assert status == WRONG_USE
    assert "there is no CDN to purge" in err
