"""The WSGI face between a validating server and a validating app."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from grip_edge_middleware import GripEdge, TopicError
from grip_edge_middleware.notes import current_notes

SETTINGS: dict[str, Any] = {
    "grip_url": "http://127.0.0.1:9",
    "cdn": "varnish://127.0.0.1:9",
    "topics": {"counter-{name}": {"routes": ["/counters/<name>/"], "hold": "stream"}},
}
PATH = "/counters/blue/"
Headers = list[tuple[str, str]]


@pytest.fixture
def edge() -> Iterator[GripEdge]:
    with closing(GripEdge(settings=SETTINGS, environ={})) as edge:
        yield edge


class Server:
    """Calls an app as a server does, and keeps what it says."""

    def __init__(self, app: Any, path: str = PATH, method: str = "GET", **environ: Any) -> None:
        self.starts: list[tuple[str, Headers]] = []
        self.written: list[bytes] = []
        self.environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method}
        self.environ.update({"QUERY_STRING": "", **environ})
        setup_testing_defaults(self.environ)
        self.environ["SCRIPT_NAME"] = ""
        self.result: Any = app(self.environ, self.start_response)

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Any:
        if exc_info and self.written:
            raise exc_info[1].with_traceback(exc_info[2])
        self.starts.append((status, headers))
        return self.written.append

    def read(self) -> bytes:
        try:
            for chunk in self.result:
                self.written.append(chunk)
        finally:
            if hasattr(self.result, "close"):
                self.result.close()
        return b"".join(self.written)

    def all(self, name: str) -> list[str]:
        return [v for n, v in self.starts[-1][1] if n.lower() == name]

    @property
    def channels(self) -> list[str]:
        entries = [entry for value in self.all("grip-channel") for entry in value.split(", ")]
        return [entry.partition(";")[0] for entry in entries]

    @property
    def keys(self) -> list[str]:
        return [key for value in self.all("surrogate-key") for key in value.split()]

    @property
    def is_held(self) -> bool:
        return bool(self.all("grip-hold"))


def plain(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"body"]


def valid(edge: GripEdge, app: Any, **environ: Any) -> Server:
    return Server(validator(edge.wsgi(validator(app))), **environ)


def answer(edge: GripEdge, app: Any, **environ: Any) -> Server:
    """The same, read to its end: the validators insist on that."""
    served = valid(edge, app, **environ)
    served.read()
    return served


def test_both_sides_keep_to_wsgi(edge: GripEdge) -> None:
    served = valid(edge, plain)

    assert served.read() == b"body"
    [channel] = served.all("grip-channel")
    assert re.fullmatch(r"counter-blue; prev-id=\d+", channel)
    assert served.keys == ["%all", "counter-%all", "counter-blue"]


def test_a_generator_is_passed_on_unread(edge: GripEdge) -> None:
    made: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for number in range(3):
            made.append(number)
            yield b"x"

    served = valid(edge, app)
    assert made == []
    assert next(served.result) == b"x"
    assert made == [0]

    assert served.read() == b"xx"
    assert served.is_held


def test_a_response_that_is_started_by_the_first_iteration_gets_its_headers(edge: GripEdge) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        edge.tag("late")
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"x"

    served = valid(edge, app)
    assert served.starts == []
    served.read()

    assert served.is_held
    assert "late" in served.keys


def test_a_template_is_no_key(edge: GripEdge) -> None:
    """It would be purged never: the values were forgotten."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        edge.tag("counter-{name}")
        return plain(environ, start_response)

    with pytest.raises(TopicError, match="takes name="):
        Server(edge.wsgi(app))


def test_an_error_page_before_the_headers_leave_replaces_them(edge: GripEdge) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"error"]

    served = valid(edge, app)

    assert served.read() == b"error"
    assert [status for status, _ in served.starts] == ["200 OK", "500 Oops"]
    assert not served.is_held
    assert served.keys == []


def test_an_error_after_the_headers_left_is_raised(edge: GripEdge) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"x"
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())

    served = valid(edge, app)

    with pytest.raises(ZeroDivisionError):
        served.read()
    assert [status for status, _ in served.starts] == ["200 OK"]


@pytest.mark.parametrize("path", [PATH, "/other/"])
def test_an_exception_reaches_the_server(edge: GripEdge, path: str) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        valid(edge, app, path=path)


class Body:
    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield b"x"

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("path", [PATH, "/other/"])
def test_a_body_comes_back_as_itself_and_is_closed_once(edge: GripEdge, path: str) -> None:
    body = Body()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return body

    served = Server(edge.wsgi(app), path)
    assert served.result is body
    served.read()

    assert body.closed == 1


def test_the_servers_own_file_wrapper_comes_back_as_itself(edge: GripEdge) -> None:
    wrapper = FileWrapper(io.BytesIO(b"file"))

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return wrapper

    assert Server(edge.wsgi(app)).result is wrapper


def test_cookies_are_neither_merged_nor_lost(edge: GripEdge) -> None:
    cookies = [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2, c"), ("Set-Cookie", "a=1")]

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), *cookies])
        return [b""]

    served = answer(edge, app)

    assert served.all("set-cookie") == [value for _, value in cookies]
    assert served.all("cache-control") == ["private, no-store"]


def test_head_is_cacheable_and_not_held(edge: GripEdge) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
        return []

    served = valid(edge, app, method="HEAD")

    assert served.read() == b""
    assert served.keys == ["%all", "counter-%all", "counter-blue"]
    assert not served.is_held


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_pass_as_they_are(edge: GripEdge, method: str) -> None:
    served = answer(edge, plain, method=method)

    assert served.starts == [("200 OK", [("Content-Type", "text/plain")])]


def test_write_is_the_servers_own(edge: GripEdge) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written ")
        return [b"returned"]

    served = valid(edge, app)

    assert served.read() == b"written returned"
    assert served.is_held


def test_an_unmatched_route_gets_the_servers_own_start_response(edge: GripEdge) -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.extend([environ, start_response])
        start_response("200 OK", [])
        return []

    served = Server(edge.wsgi(app), "/other/")

    assert seen[0] is served.environ
    assert seen[1] == served.start_response


@pytest.mark.parametrize(
    "path",
    ["", "/", "//", "/counters/", "/counters/blue", "/counters/a/b/", "\xff\xfe", "/" * 10_000],
)
def test_any_other_path_passes(edge: GripEdge, path: str) -> None:
    served = Server(edge.wsgi(plain), path)
    served.read()

    assert served.starts == [("200 OK", [("Content-Type", "text/plain")])]


def test_a_path_that_is_not_ascii_names_its_topic(edge: GripEdge) -> None:
    served = answer(edge, plain, path="/counters/blüe/".encode().decode("latin-1"))

    assert served.channels == ["counter-bl%C3%BCe"]


def test_a_hostile_path_splits_no_header(edge: GripEdge) -> None:
    served = Server(edge.wsgi(plain), "/counters/a,b;c d\r\nSet-Cookie: x/")

    values = [value for _, value in served.starts[0][1]]
    assert not any("\r" in value or "\n" in value for value in values)
    assert served.channels == ["counter-a%2Cb%3Bc%20d%0D%0ASet-Cookie%3A%20x"]


# --- in views ---------------------------------------------------------------------------------


def test_a_view_adds_keys(edge: GripEdge) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        edge.tag("author-1", "author 2")
        edge.tag("counter-{name}", name="red, green")
        return plain(environ, start_response)

    served = answer(edge, app)

    wanted = {"counter-blue", "author-1", "author%202", "counter-red%2C%20green"}
    assert wanted <= set(served.keys)


def test_a_view_declines_to_be_held(edge: GripEdge) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        edge.decline_hold()
        return plain(environ, start_response)

    served = answer(edge, app)

    assert not served.is_held
    assert served.keys == ["%all", "counter-%all", "counter-blue"]


def test_after_the_headers_left_a_view_changes_nothing(edge: GripEdge) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        edge.tag("late")
        edge.decline_hold()
        yield b"x"
        edge.tag("later")

    served = answer(edge, app)

    assert served.is_held
    assert not {"late", "later"} & set(served.keys)


def test_the_notes_of_a_response_are_not_there_for_a_request_of_another_path() -> None:
    seen: list[object] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        seen.append(current_notes.get())
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"x"

    with closing(GripEdge(settings={**SETTINGS, "auto_tags": True}, environ={})) as edge:
        face = edge.wsgi(app)
        Server(face).read()
        Server(face, "/elsewhere/").read()

    configured, other = seen
    assert configured is not None
    assert other is None


def test_what_a_view_says_does_not_reach_the_next_request(edge: GripEdge) -> None:
    calls = iter([True])

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        if next(calls, False):
            edge.tag("first")
            edge.decline_hold()
        return plain(environ, start_response)

    first, second = Server(edge.wsgi(app)), Server(edge.wsgi(app))

    assert ("first" in first.keys, "first" in second.keys) == (True, False)
    assert (first.is_held, second.is_held) == (False, True)


def test_an_app_that_raises_leaves_no_notes(edge: GripEdge) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        answer(edge, app)

    assert current_notes.get() is None


def test_outside_of_a_request_a_tag_does_nothing(edge: GripEdge) -> None:
    edge.tag("x")
    edge.decline_hold()


def test_on_an_unmatched_route_a_tag_does_nothing(edge: GripEdge) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        edge.tag("x")
        return plain(environ, start_response)

    served = answer(edge, app, path="/other/")

    assert served.starts == [("200 OK", [("Content-Type", "text/plain")])]
