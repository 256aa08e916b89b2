"""The edge gives responses headers of its own, and leaves all else as it is, on every face.

Each case is answered by an app without the edge and by the same app with it. Status, other headers
and their order, chunks, errors, and how often the body is closed must be the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from starlette.middleware import Middleware

from grip_edge_middleware import GripEdge, GripEdgeMiddleware
from tests.sources import django_app
from tests.untouched import apps
from tests.untouched.apps import Stage
from tests.untouched.cases import SETTINGS, cases
from tests.untouched.observed import Observed, observe_asgi, observe_wsgi

django_app.setup()
CASES = list(cases())
OURS = "grip_edge_middleware.django.GripEdgeMiddleware"


@pytest.fixture
def edge() -> Iterator[GripEdge]:
    with closing(GripEdge(settings=SETTINGS, environ={})) as edge:
        yield edge


@pytest.fixture
def stage() -> Stage:
    return Stage()


def observed_wsgi(stage: Stage, app: Any) -> list[tuple[Observed, int]]:
    """Return what was seen of each case, and how often its body was closed."""
    stage.closed.clear()
    seen = []
    for case in CASES:
        stage.case = case
        seen.append(observe_wsgi(app, case))
    return [(one, stage.closed[case.number]) for one, case in zip(seen, CASES, strict=True)]


def observed_asgi(stage: Stage, app: Callable[..., Awaitable[None]]) -> list[tuple[Observed, int]]:
    async def all_cases() -> list[Observed]:
        seen = []
        for case in CASES:
            stage.case = case
            seen.append(await observe_asgi(app, case))
        return seen

    stage.closed.clear()
    seen = asyncio.run(all_cases())
    return [(one, stage.closed[case.number]) for one, case in zip(seen, CASES, strict=True)]


def check(bare: list[tuple[Observed, int]], edged: list[tuple[Observed, int]]) -> None:
    """Compare what was seen without the edge with what was seen with it."""
    added = 0
    for case, (without, closed), (with_it, closed_too) in zip(CASES, bare, edged, strict=True):
        assert with_it.without_ours(case) == without.without_ours(case), case
        assert closed_too == closed, case
        added += with_it.ours(case) != without.ours(case)
    assert added > len(CASES) / 4, "the edge has done nothing"


def test_wsgi(edge: GripEdge, stage: Stage) -> None:
    app = apps.wsgi_app(stage)

    check(observed_wsgi(stage, app), observed_wsgi(stage, edge.wsgi(app)))


def test_asgi(edge: GripEdge, stage: Stage) -> None:
    app = apps.asgi_app(stage)

    check(observed_asgi(stage, app), observed_asgi(stage, edge.asgi(app)))


def test_flask(edge: GripEdge, stage: Stage) -> None:
    app = apps.flask_app(stage)
    bare = observed_wsgi(stage, app)
    edge.init_app(app)

    check(bare, observed_wsgi(stage, app))


def test_starlette(edge: GripEdge, stage: Stage) -> None:
    bare = observed_asgi(stage, apps.starlette_app(stage))
    app = apps.starlette_app(stage, Middleware(GripEdgeMiddleware, edge=edge))

    check(bare, observed_asgi(stage, app))


@contextmanager
def project(*middleware: str) -> Iterator[Stage]:
    with override_settings(
        GRIP_EDGE={**SETTINGS, "flush_timeout": 0},
        MIDDLEWARE=middleware,
        ROOT_URLCONF=apps.__name__,
        LOGGING_CONFIG=None,
    ):
        yield apps.django_stage


def test_django() -> None:
    with project() as stage:
        bare = observed_wsgi(stage, WSGIHandler())
    with project(OURS) as stage:
        edged = observed_wsgi(stage, WSGIHandler())

    check(bare, edged)


class TidyHandler(ASGIHandler):
    """Closes the file of a request's body, which Django leaves open if its client is gone."""

    async def read_body(self, receive: Any) -> Any:
        self._body = await super().read_body(receive)
        return self._body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._body.close()


def test_async_django() -> None:
    with project() as stage:
        bare = observed_asgi(stage, TidyHandler())
    with project(OURS) as stage:
        edged = observed_asgi(stage, TidyHandler())

    check(bare, edged)


@pytest.mark.parametrize("what", ["status", "fails", "kind", "method", "route", "takes"])
def test_the_cases_have_all_of_it(what: str) -> None:
    found = {getattr(case, what) for case in CASES}

    assert (
        len(found)
        >= {"status": 8, "fails": 6, "kind": 5, "method": 3, "route": 6, "takes": 4}[what]
    )
