"""The edge in a Django project, asked through Django's own handlers."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from grip_edge_middleware import SettingsError
from grip_edge_middleware.django import GripEdgeMiddleware, edge
from grip_edge_middleware.grip import next_link
from tests.middleware.django_project import OURS, TOPICS, ask, ask_async, project, seen, values
from tests.recording import DEADLINE_S, RecordingServer
from tests.sources import django_app
from tests.sources.django_app.models import Author

PATH = "/counters/blue/"
KINDS = ["wsgi", "asgi"]
SYNC_ONLY = f"{__name__}.sync_only"


class OtherURLs:
    urlpatterns = (path("other/", lambda request: HttpResponse("other")),)


def sync_only(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
    """A middleware as most are."""
    return lambda request: get_response(request)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def here() -> Iterator[None]:
    with project():
        yield


@pytest.fixture
def database(tmp_path: Path) -> Iterator[None]:
    entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "d.sqlite3")}
    with django_app.using(entry):
        yield


@contextmanager
def delivering(*middleware: str, **changed: Any) -> Iterator[RecordingServer]:
    """The project, with an edge that answers."""
    with ExitStack() as stack:
        server = stack.enter_context(RecordingServer())
        targets = {"grip_url": server.url, "cdn": server.url.replace("http", "varnish")}
        stack.enter_context(project(*middleware, **targets, **changed))
        yield server


def channels(response: Any) -> list[str]:
    entries = response.headers.get("Grip-Channel", "").split(", ")
    return [entry.partition(";")[0] for entry in entries if entry]


def keys(response: Any) -> list[str]:
    found: str = response.headers.get("Surrogate-Key", "")
    return found.split()


# --- responses --------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_a_configured_route_is_held_and_tagged(kind: str) -> None:
    response = ask(kind, PATH)

    assert response.content == b"data: 0\n\n"
    assert response.headers["Grip-Hold"] == "stream"
    assert channels(response) == ["counter-blue"]
    assert {"counter-blue", "seen"} <= set(keys(response))
    assert "s-maxage=600" in response.headers["Cache-Control"]


@pytest.mark.usefixtures("here")
def test_another_page_is_as_it_was(kind: str) -> None:
    response = ask(kind, "/async/blue/")

    assert list(response.headers) == ["Content-Type"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_pass_as_they_are(kind: str, method: str) -> None:
    response = ask(kind, PATH, method=method)

    assert list(response.headers) == ["Content-Type"]


@pytest.mark.usefixtures("here")
def test_head_is_cacheable_and_not_held(kind: str) -> None:
    response = ask(kind, PATH, method="HEAD")

    assert "counter-blue" in keys(response)
    assert "Grip-Hold" not in response.headers


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("path", ["/streams/blue/", "/async-streams/blue/"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_a_body_that_is_streamed_is_not_touched(kind: str, path: str) -> None:
    response = ask(kind, path)

    assert response.streaming
    assert "stream-blue" in keys(response)
    if kind == "wsgi":
        assert "made" not in seen
    body = response.body if hasattr(response, "body") else b"".join(response)
    assert body == b"ab"


@pytest.mark.usefixtures("here")
def test_a_response_with_cookies_is_kept_out_of_caches(kind: str) -> None:
    response = ask(kind, "/views/cookie/")

    assert response.headers["Cache-Control"] == "private, no-store"
    assert sorted(response.cookies) == ["a", "b"]
    assert response.cookies["a"]["httponly"]
    assert "Set-Cookie" not in response.headers


@pytest.mark.usefixtures("here")
def test_an_exception_is_an_answer_of_djangos_without_our_headers(kind: str) -> None:
    response = ask(kind, "/views/broken/")

    assert response.status_code == 500
    assert "Surrogate-Key" not in response.headers


@pytest.mark.usefixtures("here")
def test_a_template_is_rendered_and_its_view_may_add_keys(kind: str) -> None:
    response = ask(kind, "/views/template/")

    assert response.content == b"shown"
    assert "by%20the%20view" in keys(response)


@pytest.mark.usefixtures("here")
def test_a_request_with_credentials_is_answered_for_one(kind: str) -> None:
    response = ask(kind, PATH, authorization="Basic abc")

    assert response.headers["Cache-Control"] == "private, no-store"


def test_djangos_conditional_answers_pass(kind: str) -> None:
    with project("django.middleware.http.ConditionalGetMiddleware"):
        first = ask(kind, "/views/plain/")
        second = ask(kind, "/views/plain/", if_none_match=first.headers["ETag"])

    assert "all-plain" in keys(first)
    assert second.status_code == 304
    assert second.headers["ETag"] == first.headers["ETag"]


@pytest.mark.usefixtures("here")
def test_a_mounted_project_names_its_own_next_links() -> None:
    response = Client().get(PATH, SCRIPT_NAME="/shop")

    assert channels(response) == ["counter-blue"]
    assert response.headers["Grip-Link"].startswith("</shop/.grip-edge/next/")


def test_what_a_view_reads_are_keys_of_its_page(kind: str, database: None) -> None:
    with project(auto_tags=True):
        response = ask(kind, "/views/authors/")

    assert "%row:author:%any" in keys(response)


# --- catching up ------------------------------------------------------------------------------


def catch_up(kind: str, version: str) -> Any:
    link = next_link(["counter-blue"], "")
    return ask(kind, link, **{"grip-last": f"counter-blue; last-id={version}"})


@pytest.mark.usefixtures("here")
def test_who_missed_something_is_given_the_page(kind: str) -> None:
    values["blue"] = 7

    response = catch_up(kind, "an old one")

    assert response.status_code == 200
    assert response.content == b"data: 7\n\n"
    assert channels(response) == ["counter-blue"]
    assert response.headers["Vary"] == "Grip-Last"
    assert response.headers["Content-Type"] == "text/event-stream"


@pytest.mark.usefixtures("here")
def test_who_missed_nothing_is_held_on(kind: str) -> None:
    [version] = re.findall(r"prev-id=(\S+)", ask(kind, PATH).headers["Grip-Channel"])

    response = catch_up(kind, version)

    assert response.content == b""
    assert channels(response) == ["counter-blue"]


@pytest.mark.usefixtures("here")
def test_a_next_link_of_nothing_known_is_a_page_that_is_not_there(kind: str) -> None:
    assert ask(kind, next_link(["counter-blue"], "")).status_code == 404


# --- pushing ----------------------------------------------------------------------------------


def pushed(server: RecordingServer) -> list[str]:
    return [item["formats"]["http-stream"]["content"] for item in server.items]


def test_what_a_route_answers_is_pushed_once_it_is_submitted() -> None:
    with delivering() as server:
        ask("wsgi", PATH)
        values["blue"] = 1
        edge.submit("counter-{name}", name="blue")

        assert edge.flush(DEADLINE_S)
        assert pushed(server) == ["data: 1\n\n"]
        assert seen["thread"] != threading.get_ident()


def test_an_async_project_renders_on_its_own_loop() -> None:
    async def serve() -> None:
        await ask_async("/counters/other/")  # a page of no topic will do
        values["blue"] = 1
        edge.submit("counter-{name}", name="blue")
        assert await asyncio.to_thread(edge.flush, DEADLINE_S)

    topics = {**TOPICS, "counter-{name}": {"routes": ["name:async"], "hold": "stream"}}
    with delivering(topics=topics) as server:
        asyncio.run(serve())

        assert pushed(server) == ["data: 1\n\n"]
        assert seen["thread"] == threading.get_ident()


def test_a_loop_that_is_no_more_is_not_missed() -> None:
    with delivering() as server:
        ask("asgi", PATH)
        edge.submit("counter-{name}", name="blue")

        assert edge.flush(DEADLINE_S)
        assert pushed(server) == ["data: 0\n\n"]


def test_a_save_is_pushed_by_a_process_that_answers_nobody(database: None) -> None:
    with delivering(SYNC_ONLY) as server:
        values["ann"] = 3
        Author.objects.create(name="ann")

        assert edge.flush(DEADLINE_S)
        assert pushed(server) == ["data: 3\n\n"]


def test_a_thread_that_rendered_has_no_connection_left(database: None) -> None:
    topics = {"all-{view}": {"routes": ["name:shop:view"], "hold": "stream"}}
    with delivering(topics=topics) as server:
        ask("wsgi", "/views/plain/")
        Author.objects.create(name="ann")
        edge.submit("all-{view}", view="authors")

        assert edge.flush(DEADLINE_S)
        assert pushed(server) == ["ann"]
        assert seen["connection"].connection is None


@pytest.mark.parametrize(("fails", "told"), [("", {"counter-ann"}), ("&fails=1", set())])
def test_a_request_in_a_transaction_pushes_only_what_it_commits(
    kind: str, fails: str, told: set[str], tmp_path: Path
) -> None:
    entry = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "d.sqlite3"),
        "ATOMIC_REQUESTS": True,
    }
    with django_app.using(entry), delivering() as server:
        ask(kind, f"/views/authors/?name=ann{fails}", method="POST")

        assert edge.flush(DEADLINE_S)
        assert set(server.channels) == told


# --- sync and async ---------------------------------------------------------------------------


class Probe(ASGIRequest):
    """Notes on which thread it is asked for its path."""

    threads: set[int]

    @property
    def path_info(self) -> str:
        self.threads.add(threading.get_ident())
        return PATH

    @path_info.setter
    def path_info(self, value: str) -> None:
        self.threads = set()


class OnlySync(GripEdgeMiddleware):
    """The control: as if ours could not be async."""

    async_capable = False


def threads_of_an_async_request(middleware: str) -> set[int]:
    async def serve() -> set[int]:
        handler: Any = ASGIHandler()
        scope = {"type": "http", "method": "GET", "path": PATH, "headers": []}
        probe = Probe(scope, io.BytesIO())
        response = await handler._middleware_chain(probe)
        assert channels(response) == ["counter-blue"]
        return probe.threads

    with project(MIDDLEWARE=[middleware]):
        return asyncio.run(serve())


def test_an_async_request_stays_on_its_thread() -> None:
    ours, control = map(threads_of_an_async_request, [OURS, f"{__name__}.OnlySync"])

    assert ours == {threading.get_ident()}
    assert control != ours


@pytest.mark.parametrize(("middleware", "adapts"), [(OURS, False), (f"{__name__}.OnlySync", True)])
def test_django_adapts_nothing_for_us(
    middleware: str, adapts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "django.request")
    with project(DEBUG=True, MIDDLEWARE=[middleware]):
        ASGIHandler()

    assert any("adapted for middleware" in text for text in caplog.messages) == adapts


def test_django_takes_it_for_a_coroutine_function_where_it_is_one() -> None:
    async def get_response(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    with project():
        assert iscoroutinefunction(GripEdgeMiddleware(get_response))
        assert not iscoroutinefunction(GripEdgeMiddleware(lambda request: HttpResponse()))


def test_before_a_middleware_that_is_sync_it_is_sync_as_well() -> None:
    with project(SYNC_ONLY):
        response = ask("asgi", PATH)

    assert channels(response) == ["counter-blue"]


# --- the project's edge -----------------------------------------------------------------------


def test_other_settings_make_the_edge_anew(kind: str) -> None:
    client = Client()
    with project():
        first = client.get(PATH)
        topics = {"number-{name}": {"routes": ["/counters/<name>/"], "hold": "stream"}}
        with project(topics=topics):
            second = client.get(PATH)
        third = client.get(PATH)

    assert [*map(channels, (first, second, third))] == [
        ["counter-blue"],
        ["number-blue"],
        ["counter-blue"],
    ]


def test_urls_that_a_test_puts_in_place_of_the_projects_need_not_have_its_names(kind: str) -> None:
    with project(), override_settings(ROOT_URLCONF=OtherURLs):
        other = ask(kind, "/other/")
    with project():
        own = ask(kind, PATH)

    assert other.content == b"other"
    assert channels(own) == ["counter-blue"]


def test_wrong_settings_stop_the_project_when_it_starts() -> None:
    wrong = project(throtle=1, topics={"t": {"routes": ["name:countr"]}})
    with wrong, pytest.raises(SettingsError) as error:
        Client().get(PATH)

    assert [mistake.path for mistake in error.value.mistakes] == [
        'topics["t"].routes[0]',
        "throtle",
    ]


def test_wrong_settings_fail_no_save_and_are_logged(
    database: None, caplog: pytest.LogCaptureFixture
) -> None:
    with project(throtle=2):
        Author.objects.create(name="ann")

    assert "what is saved is not pushed" in caplog.text
    assert Author.objects.count() == 1


def test_an_edge_without_settings_says_what_to_do() -> None:
    with pytest.raises(SettingsError, match="GRIP_EDGE: missing from the project"):
        edge.submit("counters")


def test_the_edge_may_be_used_in_threads_of_its_own() -> None:
    async def serve() -> Any:
        return await sync_to_async(ask, thread_sensitive=False)("wsgi", PATH)

    with project():
        assert channels(asyncio.run(serve())) == ["counter-blue"]
