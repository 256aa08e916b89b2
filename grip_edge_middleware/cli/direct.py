"""The app itself, asked in this process: what leaves it before proxies and caches take a part."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stdout
from typing import Any

from grip_edge_middleware.cli.named import Chosen
from grip_edge_middleware.cli.status import WrongUse
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Response
from grip_edge_middleware.render import ASGIRenderer, WSGIRenderer
from grip_edge_middleware.types import ASGIApp, Message, Scope


def ask(chosen: Chosen, path: str, accept: str, *, timeout_s: float) -> Response:
    """Return what the app answers a stranger's GET. DeliveryError if it raises."""
    origin = chosen.edge.settings.origin
    # What the app prints is no part of the answer.
    with redirect_stdout(sys.stderr):
        if chosen.asgi is not None:
            renderer = ASGIRenderer(chosen.asgi, timeout_s=timeout_s, origin=origin)
            return asyncio.run(_ask(chosen.asgi, renderer, path, accept))
        if chosen.wsgi is not None:
            return WSGIRenderer(chosen.wsgi, timeout_s=timeout_s, origin=origin).render(
                path, accept
            )
    raise WrongUse(
        "--direct: no app was wrapped in this process; name with --app the app itself, or the edge "
        "of a module that wraps one"
    )


async def _ask(app: ASGIApp, renderer: ASGIRenderer, path: str, accept: str) -> Response:
    async with _alive(app, renderer):
        try:
            return await renderer.respond(path, accept)
        except DeliveryError:
            raise
        except Exception as error:
            reason = f"GET {path}: the app raised {type(error).__name__}: {error}"
            raise DeliveryError("app", reason) from error


@asynccontextmanager
async def _alive(app: ASGIApp, renderer: ASGIRenderer) -> AsyncIterator[None]:
    """Start the app up, and shut it down. One that knows nothing of that is asked as it is."""
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    # Here, where the loop runs.
    renderer.attach(scope)
    told: asyncio.Queue[Message] = asyncio.Queue()
    said: asyncio.Queue[Message] = asyncio.Queue()
    life = asyncio.ensure_future(app(scope, told.get, said.put))
    try:
        started = await _next(life, told, said, "lifespan.startup")
        if started.get("type") == "lifespan.startup.failed":
            raise DeliveryError("app", f"it did not start: {started.get('message', '')}".rstrip())
        yield
        await _next(life, told, said, "lifespan.shutdown")
    finally:
        life.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await life


async def _next(
    life: asyncio.Future[None],
    told: asyncio.Queue[Message],
    said: asyncio.Queue[Message],
    event: str,
) -> Message:
    """Tell the app of an event; return its answer, nothing if it has ended without."""
    await told.put({"type": event})
    answer = asyncio.ensure_future(said.get())
    both: list[asyncio.Future[Any]] = [life, answer]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if answer.done():
        return answer.result()
    answer.cancel()
    return {}
