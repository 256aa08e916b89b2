"""A Django app for tests, and its settings, which a process has once: from the first import on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.db import connections

# No test of ours pulls the plug.
_OPTIONS = {"django.db.backends.sqlite3": {"init_command": "PRAGMA synchronous=OFF"}}


def setup() -> None:
    """Configure Django for the process, with two databases that are none yet."""
    if not settings.configured:
        nowhere = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        settings.configure(
            ALLOWED_HOSTS=["*"],
            DATABASES={"default": dict(nowhere), "other": dict(nowhere)},
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            INSTALLED_APPS=["tests.sources.django_app", "grip_edge_middleware.django"],
            MIDDLEWARE=[],
            ROOT_URLCONF="tests.sources.django_app.urls",
            SECRET_KEY="of a test",
            USE_TZ=True,
        )
        django.setup()


@contextmanager
def using(entry: dict[str, Any], alias: str = "default") -> Iterator[None]:
    """Have an alias mean a database, in which the app's tables are created."""
    before = connections.settings[alias]
    _forget(alias)
    entry = {**entry, "OPTIONS": {**_OPTIONS.get(entry["ENGINE"], {}), **entry.get("OPTIONS", {})}}
    configured = connections.configure_settings({"default": {}, alias: entry})
    connections.settings[alias] = configured[alias]
    try:
        with connections[alias].schema_editor() as editor:
            for model in apps.get_models():
                if not model._meta.proxy:
                    editor.create_model(model)
        yield
    finally:
        _forget(alias)
        connections.settings[alias] = before


def _forget(alias: str) -> None:
    """Close this thread's connection, so that the next one has the settings of then."""
    connections[alias].close()
    del connections[alias]


setup()
