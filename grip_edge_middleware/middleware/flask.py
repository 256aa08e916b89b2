"""The face for Flask: reads `app.config["GRIP_EDGE"]` and wraps `app.wsgi_app`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from grip_edge_middleware.errors import Mistake, SettingsError
from grip_edge_middleware.types import WSGIApplication

if TYPE_CHECKING:
    from flask import Flask

CONFIG_KEY = "GRIP_EDGE"
EXTENSION = "grip_edge"


def read_config(app: Flask) -> object:
    """Return the app's settings dict."""
    try:
        return app.config[CONFIG_KEY]
    except KeyError:
        hint = f'set app.config["{CONFIG_KEY}"] before GripEdge(app), or pass settings='
        raise SettingsError([Mistake(CONFIG_KEY, "missing from app.config", hint)]) from None


def wrap(app: Flask, extension: object, face: Callable[[WSGIApplication], WSGIApplication]) -> None:
    """Put the face around the app, where its test client and every server pass through it."""
    app.extensions[EXTENSION] = extension
    wsgi_app = cast(WSGIApplication, app.wsgi_app)
    app.wsgi_app = face(wsgi_app)  # type: ignore[method-assign, assignment]
