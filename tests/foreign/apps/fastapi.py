"""FastAPI: its own suite, which asks several hundred applications, those of its tutorial too."""

from __future__ import annotations

from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

NAME = "fastapi"
VERSION = "0.165.0"
INSTALL = [
    "pytest==9.1.1",
    "a2wsgi",
    "anyio[trio]",
    "dirty-equals",
    "email-validator",
    "flask",
    "httpx",
    "httpx2",
    "inline-snapshot",
    "itsdangerous",
    "jinja2",
    "opentelemetry-sdk",
    "orjson",
    "pwdlib[argon2]",
    "pydantic-extra-types",
    "pydantic-settings",
    "pyjwt",
    "pytest-timeout",
    "pytest-xdist",
    "python-multipart",
    "python-slugify",
    "pyyaml",
    "sqlmodel",
    "strawberry-graphql",
    "typer",
    "ujson",
    "uvicorn",
]
# Telemetry takes exporters of three vendors, the command line another package.
TESTS = ["tests", "--ignore=tests/test_telemetry", "--ignore=tests/test_fastapi_cli.py"]
EXPECTED = {
    "tests/test_sse.py::test_async_generator_with_model": (
        'it asserts "no-cache", which caches may keep; where no key is said, ours says "no-store"'
    ),
}
AT_LEAST = {"seen": 2000, "changed": 1000, "tagged": 1000, "by rows": 10, "held": 1000}

SETTINGS = {
    "topics": {
        "home": {"routes": ["/"], "hold": "stream"},
        "page:{path}": {"routes": ["/<path:path>"], "hold": "stream", "auto_tags": True},
        "item:{id}": {"routes": ["/items/<id>"]},
    },
}


def wrap(wrapping: Any) -> None:
    from fastapi import FastAPI

    edge, call = wrapping.edge(SETTINGS), FastAPI.__call__
    faces: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    async def call_wrapped(app: Any, scope: Any, receive: Any, send: Any) -> None:
        if "app" in scope:  # mounted in one that is wrapped
            await call(app, scope, receive, send)
            return
        if app not in faces:
            faces[app] = edge.asgi(partial(call, app))
        await faces[app](scope, receive, send)

    FastAPI.__call__ = call_wrapped  # type: ignore[method-assign, assignment]
