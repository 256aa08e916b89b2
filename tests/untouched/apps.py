"""Apps that answer a case as it says: bare WSGI and ASGI, Flask, Starlette and Django.

Each counts how often a body was closed.
"""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase
from django.http import StreamingHttpResponse as DjangoStream
from django.urls import path
from flask import Flask
from flask import Response as FlaskResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.untouched.cases import Case, Failure

METHODS = ["GET", "HEAD", "POST"]


class Stage:
    """The case that is on now, and the closed bodies of each."""

    def __init__(self) -> None:
        self.case: Case | None = None
        self.closed: Counter[int] = Counter()

    @property
    def now(self) -> Case:
        assert self.case is not None
        return self.case


class Body:
    """A body that is made while it is read."""

    def __init__(self, chunks: Iterator[bytes], on_close: Callable[[], None]) -> None:
        self._chunks = chunks
        self.close = on_close

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks


def chunks_of(case: Case) -> Iterator[bytes]:
    """Yield the chunks, up to the failure."""
    for number, chunk in enumerate(case.chunks):
        if case.fails == "in the body" and number == case.fails_at:
            raise Failure
        yield chunk


async def async_chunks_of(case: Case) -> AsyncIterator[bytes]:
    for chunk in chunks_of(case):
        yield chunk


# --- bare -------------------------------------------------------------------------------------


def wsgi_app(stage: Stage) -> Any:
    """Return a WSGI app which uses all that PEP 3333 has."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        case = stage.now
        if case.fails == "before the start":
            raise Failure
        if case.kind == "late generator":
            return body_of(_late(case, start_response))
        write = _start(case, start_response)
        if case.fails == "after the start":
            raise Failure
        if case.kind == "file":
            file = io.BytesIO(b"".join(case.chunks))
            file.close = count_closed  # type: ignore[method-assign]
            return FileWrapper(file, 4096)
        if case.kind == "written":
            for chunk in chunks_of(case):
                write(chunk)
            return body_of(iter([b""]))
        return [*chunks_of(case)] if case.kind == "list" else body_of(chunks_of(case))

    def body_of(chunks: Iterator[bytes]) -> Body:
        return Body(chunks, count_closed)

    def count_closed() -> None:
        stage.closed[stage.now.number] += 1

    return app


def _start(case: Case, start_response: Any) -> Any:
    write = start_response(f"{case.status} Status", list(case.lines))
    return _replace(start_response) if case.fails == "replaced" else write


def _replace(start_response: Any) -> Any:
    try:
        raise Failure
    except Failure:
        error_page = [("Content-Type", "text/plain"), ("X-Error", "1")]
        return start_response("500 Oops", error_page, sys.exc_info())


def _late(case: Case, start_response: Any) -> Iterator[bytes]:
    _start(case, start_response)
    yield from chunks_of(case)
    if case.fails == "late":  # raises what it is given, if something has left
        _replace(start_response)


def asgi_app(stage: Stage) -> Any:
    """Return an ASGI app which uses extensions as well."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        case = stage.now
        try:
            await _answer(case, send)
        finally:
            stage.closed[case.number] += 1

    return app


async def _answer(case: Case, send: Any) -> None:
    if case.has_hints:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    if case.fails == "before the start":
        raise Failure
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in case.lines]
    start = {"type": "http.response.start", "status": case.status, "headers": headers}
    await send({**start, "trailers": True} if case.has_trailers else start)
    if case.fails in ("after the start", "replaced"):
        raise Failure
    if case.kind == "file":
        await send({"type": "http.response.pathsend", "path": "/a/file"})
    else:
        for chunk in chunks_of(case):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})
    if case.has_trailers:
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})
    if case.fails == "late":
        raise Failure


# --- frameworks -------------------------------------------------------------------------------


def flask_app(stage: Stage) -> Flask:
    app = Flask(__name__)
    app.logger.disabled = True  # of the failures

    @app.route("/<route>/<int:number>", methods=METHODS)
    def view(route: str, number: int) -> FlaskResponse:
        case = _view(stage)
        body: Any = [*case.chunks] if case.kind == "list" else chunks_of(case)
        response = FlaskResponse(body, case.status)
        response.headers.clear()
        response.headers.extend(case.lines)
        response.call_on_close(lambda: stage.closed.update([case.number]))
        return response

    return app


def _view(stage: Stage) -> Case:
    if stage.now.fails in ("before the start", "replaced"):
        raise Failure
    return stage.now


def starlette_app(stage: Stage, *middleware: Middleware) -> Starlette:
    async def view(request: Request) -> Response:
        case = _view(stage)
        response: Response
        if case.kind == "list":
            response = Response(b"".join(case.chunks), case.status)
        else:
            response = StreamingResponse(counted(case), case.status)
        response.raw_headers = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in case.lines
        ]
        return response

    async def counted(case: Case) -> AsyncIterator[bytes]:
        try:
            async for chunk in async_chunks_of(case):
                yield chunk
        finally:
            stage.closed[case.number] += 1

    return Starlette(
        routes=[Route("/{route}/{number:int}", view, methods=METHODS)], middleware=[*middleware]
    )


# Django takes its URLs from a module.
django_stage = Stage()


def django_view(request: HttpRequest, route: str, number: int) -> HttpResponseBase:
    case = _view(django_stage)
    response = _django_response(case, is_async=isinstance(request, ASGIRequest))
    for name in [*response.headers]:
        del response.headers[name]
    for name, value in case.lines:
        if name == "Set-Cookie":
            response.cookies.load(value)
        else:
            response.headers[name] = value
    response._resource_closers.append(lambda: django_stage.closed.update([case.number]))  # type: ignore[attr-defined]
    return response


def _django_response(case: Case, *, is_async: bool) -> HttpResponseBase:
    if case.kind == "list":
        return HttpResponse(b"".join(case.chunks), status=case.status)
    if case.kind == "file" and not is_async:
        return FileResponse(io.BytesIO(b"".join(case.chunks)), status=case.status)
    chunks = async_chunks_of(case) if is_async else chunks_of(case)
    return DjangoStream(chunks, status=case.status)


urlpatterns = [path("<route>/<int:number>", django_view)]
