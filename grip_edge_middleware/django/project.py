"""The project's edge: made of its settings when first needed, anew when tests change these.

Where no request is ever answered, in a shell, a command or a task queue, `SpareApp` renders what is
pushed: the project's own views, called as its servers call them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextvars import ContextVar
from functools import cache
from typing import Any

from django.apps import apps
from django.conf import UserSettingsHolder, settings
from django.core.asgi import get_asgi_application as get_django_application
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections

from grip_edge_middleware.django.names import with_paths
from grip_edge_middleware.edge import GripEdge
from grip_edge_middleware.errors import GripEdgeError, Mistake, SettingsError
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.types import (
    ASGIApp,
    Receive,
    Scope,
    Send,
    StartResponse,
    WSGIEnvironment,
)

logger = logging.getLogger(__name__)

SETTING = "GRIP_EDGE"

is_spare: ContextVar[bool] = ContextVar("grip_edge_is_spare", default=False)
"""Whether the middleware is loaded for what renders only, which has no use for ours."""


class SpareApp(WSGIHandler):
    """The project as a WSGI app, without our middleware."""

    def load_middleware(self, is_async: bool = False) -> None:
        """Load the others."""
        token = is_spare.set(True)
        try:
            super().load_middleware(is_async)
        finally:
            is_spare.reset(token)


_is_reading: ContextVar[bool] = ContextVar("grip_edge_is_reading", default=False)

_handler = cache(SpareApp)


def _spare_app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    return _handler()(environ, start_response)


def read_settings() -> object:
    """Return `GRIP_EDGE`, with paths in place of the names of URLs.

    SettingsError lists every mistake, those in the names as well.
    """
    try:
        found = getattr(settings, SETTING)
    except AttributeError:
        hint = 'GRIP_EDGE = {"topics": {...}}'
        raise SettingsError(
            [Mistake(SETTING, "missing from the project's settings", hint)]
        ) from None
    token = _is_reading.set(True)  # a view's module may ask the database while it is imported
    try:
        resolved, mistakes = with_paths(found)
    finally:
        _is_reading.reset(token)
    if mistakes and not _has_other_urls():
        raise SettingsError([*mistakes, *_mistakes(resolved)])
    return resolved


def _has_other_urls() -> bool:
    """Whether a test has put other URLs in the place of those that the settings name.

    What they lack is no mistake then: the views that it asks are not to fail because of us.
    """
    holder: Any = settings._wrapped
    while isinstance(holder, UserSettingsHolder) and SETTING not in vars(holder):
        if "ROOT_URLCONF" in vars(holder):
            return True
        holder = holder.default_settings
    return False


def _mistakes(found: object) -> tuple[Mistake, ...]:
    try:
        Settings.parse(found, os.environ)
    except SettingsError as error:
        return error.mistakes
    return ()


edge = GripEdge(settings=read_settings, spare_app=_spare_app)


def connect(**_: object) -> None:
    """Have the edge listen before anything can be written, in processes that serve nobody as well.

    Not while the apps are set up: the names of URLs are known when the views can be imported, and
    the admin's URLs when all apps have registered their models.
    """
    if _is_reading.get() or not apps.ready or not hasattr(settings, SETTING):
        return
    try:
        edge.start()
    except Exception as error:
        _say_once(str(error) if isinstance(error, GripEdgeError) else repr(error))


@cache
def _say_once(reason: str) -> None:
    logger.error("what is saved is not pushed: %s", reason)


def forget(*, setting: str, **_: object) -> None:
    """Make the edge anew for other settings, as tests have them."""
    if setting in (SETTING, "MIDDLEWARE", "ROOT_URLCONF"):
        _handler.cache_clear()
        edge.reload()
        if any(each.connection for each in connections.all(initialized_only=True)):
            connect()


def get_asgi_application() -> ASGIApp:
    """Return Django's ASGI application, which delivers what is pending when its server stops.

    Django's own knows of no lifespan, and uvicorn ends without `atexit`.
    """
    application: Any = get_django_application()

    async def with_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await application(scope, receive, send)

    return with_lifespan


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await asyncio.to_thread(edge.flush)
            return await send({"type": "lifespan.shutdown.complete"})
        await send({"type": "lifespan.startup.complete"})
