"""`grip-edge check`, by what it prints and returns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grip_edge_middleware.cli.handshake import judge_handshake
from grip_edge_middleware.cli.status import FOUND_WRONG, OK, WRONG_USE
from tests.cli.conftest import Ended, Run, Served
from tests.recording import Answer, RecordingServer, acknowledge
from tests.recording import Recorded as Request

TOKEN = "TOKEN-that-nobody-may-see-at-all"
CLOSED = "http://127.0.0.1:1"


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        server.respond = as_targets_do
        yield server


def as_targets_do(request: Request) -> Answer:
    return Answer(200, {}, b"Published\n") if request.is_publish else acknowledge(request)


@pytest.fixture
def check(
    run: Run, monkeypatch: pytest.MonkeyPatch, write: Callable[[str], str]
) -> Callable[..., Ended]:
    """Check settings, with options."""
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)

    def check(settings: object, *options: str) -> Ended:
        module = write("from __main__ import _settings as settings")
        monkeypatch.setattr(sys.modules["__main__"], "_settings", settings, raising=False)
        monkeypatch.delitem(sys.modules, module, raising=False)
        return run("check", "--app", f"{module}:settings", *options)

    return check


def settings_for(url: str, **more: Any) -> dict[str, Any]:
    return {
        "topics": {"counters": {"routes": ["/counters/"], "hold": "stream"}},
        "grip_url": f"{url}?iss=realm&key={TOKEN}&verify-key={'k' * 32}",
        "cdn": [
            f"varnish://{url.removeprefix('http://')}",
            {"fastly": {"service_id": "SID", "token": TOKEN, "url": url}},
        ],
        **more,
    }


def found(ended: Ended) -> dict[str, tuple[str, str, str]]:
    """Return what was found, by what it is about."""
    findings = json.loads(ended.out)["findings"]
    return {f["about"]: (f["level"], f["says"], f["do"]) for f in findings}


def test_all_is_well_with_targets_that_take_everything(
    check: Callable[..., Ended], server: RecordingServer
) -> None:
    ended = check(settings_for(server.url))

    assert ended.status == OK
    assert "warning" not in ended.out
    assert "wrong" not in ended.out
    assert f"ok      varnish {server.url}" in ended.out
    assert {r.keys[0] for r in server.purges} == {"%nobody"}
    assert server.channels == ["%nobody"]


def test_json_says_the_same(check: Callable[..., Ended], server: RecordingServer) -> None:
    ended = check(settings_for(server.url), "--json")

    assert json.loads(ended.out)["ok"] is True
    assert found(ended)["fastly SID"] == ("ok", "takes purges", "")


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_token_is_found_and_not_shown(
    status: int, check: Callable[..., Ended], server: RecordingServer
) -> None:
    server.respond = lambda request: Answer(status, {}, f"not {TOKEN}".encode())

    ended = check(settings_for(server.url), "--json")
    people = check(settings_for(server.url))

    assert ended.status == people.status == FOUND_WRONG
    level, says, do = found(ended)["fastly SID"]
    assert (level, says[:4]) == ("wrong", f"{status}:")
    assert "token" in do
    level, says, do = found(ended)[f"grip {server.url}"]
    assert (level, says) == ("wrong", f"{status}: the key in grip_url is not accepted")
    assert "grip_url" in do
    assert TOKEN not in ended.out + ended.err + people.out + people.err


@pytest.mark.parametrize(
    ("status", "do"),
    [
        (0, ""),
        (403, "make a token with the permission Zone, Cache Purge for this zone"),
        (429, "the plan's limit of purges is used up"),
        (500, "is url the API's?"),
    ],
)
def test_cloudflare_is_asked_and_its_answer_explained(
    status: int, do: str, check: Callable[..., Ended], server: RecordingServer
) -> None:
    cdn = {"cloudflare": {"zone_id": "Z", "token": TOKEN, "url": server.url}}
    if status:
        server.respond = lambda request: Answer(status, {}, f"not {TOKEN}".encode())

    ended = check(settings_for(server.url, cdn=cdn), "--json")

    level, _, told = found(ended)["cloudflare Z"]
    assert level == ("wrong" if status else "ok")
    assert told.startswith(do)
    assert TOKEN not in ended.out + ended.err


def test_a_dead_target_is_found(check: Callable[..., Ended]) -> None:
    ended = check(settings_for(CLOSED), "--json")

    assert ended.status == FOUND_WRONG
    for target in (f"varnish {CLOSED}", "fastly SID", f"grip {CLOSED}"):
        level, says, do = found(ended)[target]
        assert level == "wrong"
        assert "refused" in says
        assert "is it running?" in do
    assert TOKEN not in ended.out + ended.err


def test_a_target_that_says_nothing_is_waited_for_no_longer_than_asked(
    check: Callable[..., Ended], server: RecordingServer
) -> None:
    server.respond = lambda request: Answer(hangs=True)

    ended = check(settings_for(server.url), "--json", "--timeout", "0.3")
    server.release.set()

    assert ended.status == FOUND_WRONG
    assert found(ended)["fastly SID"][1] == "no answer within 0.3 s"


@pytest.mark.parametrize(
    ("answer", "about", "level", "says"),
    [
        (Answer(raw=b"garbage\r\n\r\n"), "varnish", "wrong", "RemoteProtocolError"),
        (Answer(200), "varnish", "wrong", "it does not run examples/edge's VCL"),
        (Answer(405), "varnish", "wrong", "answered 405 to a purge"),
        (Answer(200, {}, b"<html>"), "grip", "warning", 'not "Published"'),
        (Answer(404), "grip", "wrong", "answered 404 to a publish"),
    ],
)
def test_what_is_no_target_of_ours_is_told(
    answer: Answer,
    about: str,
    level: str,
    says: str,
    check: Callable[..., Ended],
    server: RecordingServer,
) -> None:
    server.respond = lambda request: answer

    ended = check(settings_for(server.url), "--json")

    found_level, found_says, do = found(ended)[f"{about} {server.url}"]
    assert found_level == level
    assert says in found_says
    assert do


def test_every_mistake_in_the_settings_is_shown(check: Callable[..., Ended]) -> None:
    wrong = {"throtle": 1, "topics": {"a": {"hold": "steam"}}, "cdn": {"fastly": {"token": TOKEN}}}

    ended = check(wrong)
    ended_json = check(wrong, "--json")

    assert ended.status == ended_json.status == WRONG_USE
    assert 'unknown setting (did you mean "throttle"?)' in ended.out
    assert set(found(ended_json)) >= {"throtle", 'topics["a"].hold', "cdn[0]['fastly'].service_id"}
    assert TOKEN not in ended.out + ended.err + ended_json.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "0"], 'expected a number, 1 or more, got "0"'),
        (["--timeout", "-1"], 'expected seconds, above 0, got "-1"'),
        (["--header", "no colon"], "expected 'Name: value'"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options: list[str], said: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("check", "--app", "a:b", *options)

    assert ended.value.code == WRONG_USE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:7999/x", "expected a URL"),
        ("ftp://localhost/", "expected a URL"),
        ("http://localhost:port/", "expected a URL"),
        (f"http://me:{TOKEN}@localhost/", "the URL has a user and password"),
    ],
)
def test_a_url_that_cannot_be_fetched_is_refused(url: str, said: str, run: Run) -> None:
    ended = run("check", "--app", "a:b", "--url", url)

    assert ended.status == WRONG_USE
    assert said in ended.err
    assert TOKEN not in ended.err + ended.out


def test_who_names_no_app_is_told_how(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRIP_EDGE_APP", raising=False)

    ended = run("check")

    assert ended.status == WRONG_USE
    assert "say --app MODULE:NAME" in ended.err


def test_workers_without_a_shared_store_are_wrong(
    check: Callable[..., Ended], server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")

    ended = check(settings_for(server.url), "--json")
    said = check(settings_for(server.url), "--json", "--workers", "1")

    level, says, _ = found(ended)["store"]
    assert level == "wrong"
    assert says.startswith("each of the 4 workers has its own")
    assert found(said)["store"][0] == "ok"


def test_a_shared_store_is_asked(
    check: Callable[..., Ended], server: RecordingServer, tmp_path: Path
) -> None:
    missing = check(settings_for(server.url, store=f"sqlite:///{tmp_path}/no/edge"), "--json")
    to_be = check(settings_for(server.url, store=f"sqlite:///{tmp_path}/edge"), "--json")
    (tmp_path / "no-database").write_text("this is text, and no database, by far" * 100)
    broken = check(settings_for(server.url, store=f"sqlite:///{tmp_path}/no-database"), "--json")
    dead = check(settings_for(server.url, store=f"redis://:{TOKEN}@127.0.0.1:1/0"), "--json")

    assert found(missing)["store sqlite"][:2] == ("wrong", f"there is no folder {tmp_path}/no")
    assert found(to_be)["store sqlite"][0] == "ok"
    assert not (tmp_path / "edge").exists()
    assert found(broken)["store sqlite"][0] == "wrong"
    assert found(dead)["store redis"][0] == "wrong"
    assert TOKEN not in dead.out + dead.err


def test_a_dead_origin_is_found(check: Callable[..., Ended], server: RecordingServer) -> None:
    ended = check(settings_for(server.url, origin=CLOSED), "--json")
    well = check(settings_for(server.url, origin=server.url), "--json")

    assert found(ended)[f"origin {CLOSED}"][0] == "wrong"
    assert found(well)[f"origin {server.url}"][0] == "ok"


SHOP_WITH_DATABASES = """
import django, sqlalchemy
from django.conf import settings as django_settings
from grip_edge_middleware.sources.sqlalchemy import create_outbox

django_settings.configure(DATABASES={{"default": {{
    "ENGINE": "django.db.backends.sqlite3", "NAME": "{folder}/django.db"
}}}})
django.setup()
with_it = sqlalchemy.create_engine("sqlite:///{folder}/with.db")
metadata = sqlalchemy.MetaData()
create_outbox(metadata)
metadata.create_all(with_it)
without = sqlalchemy.create_engine("sqlite:///{folder}/without.db")
dead = sqlalchemy.create_engine("sqlite:////no/such/folder/dead.db")
settings = {{"grip_url": None, "outbox": True, "topics": {{"all": {{"routes": ["/"]}}}}}}
"""


def test_a_missing_outbox_is_found(write: Callable[[str], str], tmp_path: Path) -> None:
    module = write(SHOP_WITH_DATABASES.format(folder=tmp_path))

    command = [sys.executable, "-m", "grip_edge_middleware", "check", "--json"]
    named = ["--app", f"{module}:settings", "--app-dir", str(tmp_path)]
    # Not here, where other tests have databases too.
    done = subprocess.run([*command, *named], capture_output=True, text=True, check=False)

    told = found(Ended(done.returncode, done.stdout, done.stderr))
    assert done.returncode == FOUND_WRONG
    assert told[f"outbox sqlite:///{tmp_path}/with.db"][0] == "ok"
    assert told[f"outbox sqlite:///{tmp_path}/without.db"][1].startswith("there is no table")
    assert told["outbox default"][1].startswith("there is no table")
    assert told["outbox sqlite:////no/such/folder/dead.db"][1].startswith("cannot be asked")


def test_models_that_nothing_imports_are_warned_of(
    check: Callable[..., Ended], server: RecordingServer
) -> None:
    topics = {"counters": {"routes": ["/"], "models": ["no_such_module:Counter"]}}

    ended = check(settings_for(server.url, topics=topics), "--json")

    level, says, _ = found(ended)["models"]
    assert level == "warning"
    assert "no_such_module:Counter names nothing" in says


# --- a page through the edge ---------------------------------------------------------------------


@pytest.fixture
def probe(run: Run, served: Served) -> Callable[..., Ended]:
    def probe(*urls: str, more: tuple[str, ...] = ()) -> Ended:
        options = [option for url in urls for option in ("--url", url)]
        return run("check", "--app", f"{served.module}:settings", *options, *more)

    return probe


def said_of(ended: Ended, url: str) -> list[tuple[str, str]]:
    findings = json.loads(ended.out)["findings"]
    return [(f["level"], f["says"]) for f in findings if f["about"] == url]


def test_a_page_that_works_is_cached_hidden_held_and_purged(
    probe: Callable[..., Ended], served: Served
) -> None:
    stream, poll = f"{served.url}/counters/a", f"{served.url}/polls/7/"

    ended = probe(stream, poll, more=("--json",))

    assert ended.status == OK
    assert said_of(ended, stream) == [
        ("ok", "answered 200, for counter-a, counters"),
        ("ok", "neither Surrogate-Key nor Grip headers reach the client"),
        ("ok", 'is held: hold "stream"'),
        ("ok", "is cached: the second answer was a hit"),
        ("ok", "is purged by its key counter-a"),
    ]
    assert ("ok", 'is held: hold "response"') in said_of(ended, poll)


def test_a_socket_that_opens_is_ok(probe: Callable[..., Ended], served: Served) -> None:
    room = f"{served.url}/rooms/a"

    said = said_of(probe(room, more=("--json",)), room)

    assert ("ok", "opens a WebSocket") in said
    assert not [level for level, _ in said if level == "wrong"]


@pytest.mark.parametrize(
    ("status", "says", "do"),
    [(200, "the app is asked for a page", "over_http"), (403, "answered 403", "log")],
)
def test_a_socket_that_does_not_open_is_wrong(status: int, says: str, do: str) -> None:
    finding = judge_handshake("http://h/rooms/a", status)

    assert finding.level == "wrong"
    assert says in finding.says
    assert do in finding.do


def test_people_read_one_line_for_each(probe: Callable[..., Ended], served: Served) -> None:
    url = f"{served.url}/counters/people"

    ended = probe(url)

    assert ended.status == OK
    assert sum(line.startswith(f"ok      {url}") for line in ended.out.splitlines()) == 5


def test_a_page_that_is_asked_past_the_grip_proxy_is_not_held(
    probe: Callable[..., Ended], served: Served
) -> None:
    past, signed = f"{served.cache_url}/counters/a", f"{served.cache_url}/counters/b"

    ended = probe(past, more=("--json",))
    as_proxy = probe(signed, more=("--json", "--header", "Grip-Sig: x"))

    assert ended.status == as_proxy.status == FOUND_WRONG
    assert ("wrong", "is answered, but not held") in said_of(ended, past)
    [told] = [says for level, says in said_of(as_proxy, signed) if level == "wrong"]
    assert told.startswith("Grip-Hold and the like reach the client")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/counters/cookie", "is not cached: the second answer was a miss"),
        ("/counters/gone", "answered 404"),
        ("/counter/a", "no route is /counter/a"),
    ],
)
def test_a_page_that_does_not_work_is_told(
    path: str, said: str, probe: Callable[..., Ended], served: Served
) -> None:
    url = f"{served.url}{path}"

    ended = probe(url, more=("--json",))

    assert ended.status == FOUND_WRONG
    assert ("wrong", said) in said_of(ended, url)


def test_a_private_page_is_held_and_in_no_cache(
    probe: Callable[..., Ended], served: Served
) -> None:
    url = f"{served.url}/orders/7"

    ended = probe(url, more=("--json",))

    assert ended.status == OK
    assert said_of(ended, url)[2:] == [
        ("ok", 'is held: hold "stream"'),
        ("ok", "is private, and in no cache"),
    ]


def test_an_edge_that_is_not_there_is_told(probe: Callable[..., Ended]) -> None:
    url = f"{CLOSED}/counters/a"

    ended = probe(url, more=("--json",))

    assert ended.status == FOUND_WRONG
    [(level, says)] = said_of(ended, url)
    assert level == "wrong"
    assert "refused" in says


def test_a_purge_that_reaches_another_cache_is_told(
    check: Callable[..., Ended], server: RecordingServer, served: Served
) -> None:
    elsewhere = f"varnish://127.0.0.1:{server.port}"
    url = f"{served.url}/counters/elsewhere"

    ended = check({**served.settings, "cdn": elsewhere}, "--json", "--url", url)

    assert ended.status == FOUND_WRONG
    assert ("wrong", "is a hit still after a purge of counter-elsewhere") in said_of(ended, url)


def test_a_header_of_a_probe_is_not_shown(probe: Callable[..., Ended], served: Served) -> None:
    ended = probe(f"{served.url}/counters/a", more=("--header", f"Authorization: {TOKEN}"))

    assert TOKEN not in ended.out + ended.err
