"""The one object that a user holds."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from werkzeug.test import Client

from grip_edge_middleware import GripEdge, GripEdgeError, SettingsError, TopicError
from grip_edge_middleware.sources.sqlalchemy import create_outbox
from tests.recording import DEADLINE_S, Answer, RecordingServer, acknowledge

TOPICS: dict[str, Any] = {
    "counter-{name}": {"routes": ["/counters/<name>/"], "hold": "stream"},
    "counters": {"routes": ["/counters/"]},
    "bid-{lot}:{id}": {"routes": ["/lots/<lot>/<id>/"], "hold": "response"},
}


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture
def edge(server: RecordingServer) -> Iterator[GripEdge]:
    settings = {"grip_url": server.url, "cdn": server.url.replace("http", "varnish")}
    with closing(GripEdge(settings={**settings, "topics": TOPICS}, environ={})) as edge:
        yield edge


def test_a_topic_is_named_by_its_template_or_its_name(
    edge: GripEdge, server: RecordingServer
) -> None:
    edge.publish("counter-{name}", "x", name="a b")
    edge.publish("counter-red", "x")
    edge.publish("bid-{lot}:{id}", "x", lot=1, id=2)

    assert edge.flush(DEADLINE_S)
    assert set(server.channels) == {"counter-a%20b", "counter-red", "bid-1:2"}


@pytest.mark.parametrize(
    ("topic", "params"),
    [
        ("nothing", {}),
        ("counter-{name}", {}),
        ("counter-{name}", {"nome": "x"}),
        ("counter-{name}", {"name": "x", "more": "y"}),
        ("counter-{name}", {"name": None}),
        ("counters", {"name": "x"}),
        ("counter-{nome}", {"nome": "x"}),
        ("counter-a b", {}),
        ("", {}),
    ],
)
def test_a_topic_that_is_not_declared_is_an_error(
    edge: GripEdge, topic: str, params: dict[str, Any]
) -> None:
    with pytest.raises(TopicError) as error:
        edge.submit(topic, **params)

    assert isinstance(error.value, GripEdgeError)
    assert "counter-{name}" in str(error.value) or topic in str(error.value)


def test_a_parameter_may_be_named_as_one_of_ours(server: RecordingServer) -> None:
    template = "note-{topic}:{data}:{self}"
    settings = {"grip_url": server.url, "topics": {template: {}}}
    with closing(GripEdge(settings=settings, environ={})) as edge:
        edge.submit(template, topic=1, data=2, self=3)
        edge.publish(template, "x", topic="a", data="b", self="c")

        assert edge.flush(DEADLINE_S)
    assert server.channels == ["note-a:b:c"]


def test_data_is_published_as_each_hold_wants_it(edge: GripEdge, server: RecordingServer) -> None:
    edge.publish("counter-blue", {"value": 1})
    edge.publish("bid-1:2", [1, "ü"])

    assert edge.flush(DEADLINE_S)
    formats = {item["channel"]: item["formats"] for item in server.items}
    assert formats["counter-blue"] == {"http-stream": {"content": 'data: {"value":1}\n\n'}}
    assert formats["bid-1:2"]["http-response"]["body"] == '[1,"ü"]'


def test_data_that_is_no_json_is_an_error_of_the_caller(edge: GripEdge) -> None:
    with pytest.raises(TypeError):
        edge.publish("counter-blue", {"value": object()})


def test_an_unwatched_instance_is_an_error(edge: GripEdge) -> None:
    with pytest.raises(TopicError, match="no topic has object among its models"):
        edge.changed(object())


class Counter:
    def __init__(self, name: str) -> None:
        self.name = name


def test_an_instance_that_no_source_sees_is_told(server: RecordingServer) -> None:
    topic = {**TOPICS["counter-{name}"], "models": [Counter], "payload": lambda c: c.name * 2}
    settings = {"grip_url": server.url, "topics": {"counter-{name}": topic}}
    with closing(GripEdge(settings=settings, environ={})) as edge:
        edge.changed(Counter("blue"))

        assert edge.flush(DEADLINE_S)
        assert server.items[0]["formats"]["http-stream"]["content"] == "blueblue"


# --- with a database --------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Tally(Base):
    __tablename__ = "counter"
    name: Mapped[str] = mapped_column(primary_key=True)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/counters.sqlite3")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@contextmanager
def watching(server: RecordingServer, **settings: Any) -> Iterator[GripEdge]:
    topics = {"counter-{name}": {"models": [Tally], "routes": ["/counters/<name>/"]}}
    cdn = server.url.replace("http", "varnish")
    given = {"grip_url": None, "cdn": cdn, "topics": topics, "confirm_after": 0, **settings}
    with closing(GripEdge(settings=given, environ={})) as edge:
        yield edge


def test_what_waits_for_a_commit_is_told_after_it(server: RecordingServer, engine: Engine) -> None:
    with watching(server) as edge, Session(engine) as session:
        edge.submit("counter-blue", on_commit=session)
        edge.publish("counter-red", "x", on_commit=session)
        edge.changed(Tally(name="green"), on_commit=session)
        assert edge.health()["pending"] == 0
        session.execute(text("select 1"))
        session.commit()

        assert edge.flush(DEADLINE_S)
    assert {"counter-blue", "counter-red", "counter-green"} <= server.purged_keys


def test_what_waits_for_a_commit_is_forgotten_with_a_rollback(
    server: RecordingServer, engine: Engine
) -> None:
    with watching(server) as edge, Session(engine) as session:
        session.execute(text("select 1"))
        edge.submit("counter-blue", on_commit=session)
        session.rollback()
        session.commit()

        assert edge.health()["pending"] == 0
    assert server.purged_keys == set()


def test_what_is_no_transaction_cannot_be_waited_for(edge: GripEdge) -> None:
    with pytest.raises(TypeError, match=r"nothing to wait for in an instance of builtins\.object"):
        edge.submit("counters", on_commit=object())
    with pytest.raises(TypeError, match=r"nothing to follow in an instance of builtins\.int"):
        edge.follow(1)


def test_a_suppressed_save_is_not_told(server: RecordingServer, engine: Engine) -> None:
    with watching(server) as edge, Session(engine) as session:
        with edge.suppress():
            session.add(Tally(name="blue"))
            session.commit()
            edge.submit("counter-green")
        session.add(Tally(name="red"))
        session.commit()

        assert edge.flush(DEADLINE_S)
    assert "counter-blue" not in server.purged_keys
    assert {"counter-red", "counter-green"} <= server.purged_keys


def test_statements_on_an_engine_without_a_session_are_seen_if_it_is_followed(
    server: RecordingServer, engine: Engine
) -> None:
    with watching(server) as edge:
        edge.follow(engine)
        with engine.begin() as connection:
            connection.execute(text("insert into counter values ('blue')"))

        assert edge.flush(DEADLINE_S)
    assert server.purged_keys == {"counter-%all"}


def test_what_a_killed_process_committed_is_purged_by_the_next(
    server: RecordingServer, engine: Engine
) -> None:
    outbox = create_outbox(MetaData())
    outbox.create(engine)
    changes = '[{"topic":"counter-blue","of":"counter-{name}","params":[["name","blue"]]}]'
    with engine.begin() as connection:
        connection.execute(outbox.insert().values(id="left", edge="", due=0, changes=changes))

    with watching(server, outbox=True) as edge:
        edge.follow(engine)
        server.wait_for(lambda seen: any("counter-blue" in r.keys for r in seen if r.is_purge))

    with engine.connect() as connection:
        assert connection.execute(outbox.select()).all() == []


def test_health_shows_targets_counts_and_what_is_pending(
    edge: GripEdge, server: RecordingServer
) -> None:
    server.respond = lambda _: Answer(503)
    edge.publish("counter-blue", "x")
    server.wait_for(lambda seen: len(seen) >= 2)

    health = edge.health()

    assert (health["pending"], health["escalated"], health["longest_ttl"]) == (1, [], 5)
    assert health["counts"]["changes"] == 1
    varnish, proxy = health["targets"].values()
    assert varnish["state"] in ("failing", "down")
    assert varnish["failures"] >= 1
    assert 0 <= varnish["failing_for_s"] < DEADLINE_S
    assert 0 <= varnish["retry_in_s"] < 2
    assert "503" in varnish["error"]
    assert proxy == {
        "state": "ok",
        "failures": 0,
        "failing_for_s": 0.0,
        "retry_in_s": 0.0,
        "error": "",
    }


def test_health_shows_what_there_was_no_room_for(server: RecordingServer) -> None:
    server.respond = lambda _: Answer(503)
    settings = {"cdn": server.url.replace("http", "varnish"), "grip_url": None, "max_pending": 1}
    topics = {"counter-{name}": {"routes": ["/counters/<name>/"]}}
    with closing(GripEdge(settings={**settings, "topics": topics}, environ={})) as edge:
        edge.submit("counter-first")
        server.wait_for(lambda seen: len(seen) >= 2)  # it failed, so it is pending again
        for number in range(5):
            edge.submit("counter-{name}", name=number)

        assert edge.health()["escalated"] == ["counter-%all"]
        server.respond = acknowledge
        assert edge.flush(DEADLINE_S)
        assert edge.health()["escalated"] == []


def test_pages_are_kept_for_seconds_while_purges_fail_and_then_as_before(
    edge: GripEdge, server: RecordingServer
) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"1"]

    client = Client(edge.wsgi(app))

    def edge_ttl() -> str:
        return client.get("/counters/blue/").headers["Surrogate-Control"].partition(",")[0]

    assert edge_ttl() == "max-age=600"
    server.respond = lambda _: Answer(503)
    edge.submit("counter-blue")
    server.wait_for(lambda seen: len(seen) >= 2)
    assert edge_ttl() == "max-age=5"
    server.respond = acknowledge
    assert edge.flush(DEADLINE_S)
    assert edge_ttl() == "max-age=600"


def test_health_is_plain_data(edge: GripEdge) -> None:
    assert json.loads(json.dumps(edge.health())) == edge.health()


def test_an_edge_without_settings_refuses_everything_but_tags() -> None:
    edge = GripEdge(environ={})
    edge.tag("x")
    edge.decline_hold()
    edge.close()

    for call in (lambda: edge.submit("x"), edge.flush, edge.health, lambda: edge.wsgi(None)):  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match="no settings yet"):
            call()


def test_settings_may_come_from_the_environment() -> None:
    environ = {"GRIP_URL": "http://proxy:5561", "FASTLY_API_TOKEN": "t"}
    settings = {"cdn": "fastly://S1", "topics": TOPICS}
    with closing(GripEdge(settings=settings, environ=environ)) as edge:
        assert set(edge.health()["targets"]) == {"fastly S1", "grip http://proxy:5561"}


def test_no_secret_is_shown(server: RecordingServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server.respond = lambda _: Answer(401, {}, b"UNLIKELY-token")
    settings = {
        "grip_url": f"{server.url}?iss=realm&key=UNLIKELY-key-of-more-than-32-characters",
        "cdn": {"fastly": {"service_id": "S1", "token": "UNLIKELY-token", "url": server.url}},
        "topics": TOPICS,
        "flush_timeout": 0.1,
    }
    with closing(GripEdge(settings=settings, environ={})) as edge:
        edge.publish("counter-blue", "x")
        server.wait_for(lambda seen: len(seen) >= 2)
        parts = edge._parts
        assert parts is not None
        shown = [caplog.text, str(edge.health()), repr(edge), repr(vars(parts))]

    assert server.requests[0].headers["fastly-key"] == "UNLIKELY-token"
    assert "UNLIKELY" not in "".join(shown) + caplog.text


def test_a_secret_that_is_wrong_is_not_repeated_by_the_error() -> None:
    settings = {
        "grip_url": "http://x?key=base64:UNLIKELY!&iss=x",
        "cdn": {"fastly": {"service_id": "S1", "token": "UNLIKELY token"}},
        "topics": TOPICS,
    }

    with pytest.raises(SettingsError) as error:
        GripEdge(settings=settings, environ={})

    assert len(error.value.mistakes) == 2
    assert "UNLIKELY" not in f"{error.value} {error.value!r}"


@pytest.mark.parametrize("port", ["abc", "99999"])
@pytest.mark.parametrize("setting", ["cdn", "grip_url", "origin"])
def test_a_port_that_is_none_is_a_settings_error(setting: str, port: str) -> None:
    """Else the first request to it fails, far from the mistake."""
    scheme = "varnish" if setting == "cdn" else "http"
    settings = {"grip_url": "http://x:1", "topics": TOPICS, setting: f"{scheme}://host:{port}"}

    with pytest.raises(SettingsError):
        GripEdge(settings=settings, environ={}).close()


def test_an_edge_that_listens_to_models_may_be_closed_twice() -> None:
    class Counter:
        name = "blue"

    topics = {"counter-{name}": {"routes": ["/counters/<name>/"], "models": [Counter]}}
    edge = GripEdge(settings={"topics": topics})

    edge.close()
    edge.close()

    assert edge.health()["pending"] == 0


def test_an_edge_knows_its_settings_and_its_face() -> None:
    with closing(GripEdge(settings={"grip_url": None, "topics": {"all": {}}}, environ={})) as edge:
        before = edge.face
        face = edge.wsgi(lambda environ, start_response: [])

        assert before is None
        assert edge.face is face
        assert edge.settings.topics
