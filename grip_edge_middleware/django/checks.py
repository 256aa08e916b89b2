"""What `manage.py check` says of the edge. Each has an id, for `SILENCED_SYSTEM_CHECKS`.

* `grip_edge.E001`: a mistake in `GRIP_EDGE`, each by itself.
* `grip_edge.E002`: `models` names what there is not, so its saves would not be seen.
* `grip_edge.W001`: the middleware is missing from `MIDDLEWARE`.
* `grip_edge.W002`: a middleware stands before ours.
* `grip_edge.W003`: the outbox has no table. Asked by `manage.py check --database default`.
* `grip_edge.W004`: `ALLOWED_HOSTS` refuses the host for which pages are rendered.
* `grip_edge.W005`: `SECURE_SSL_REDIRECT` redirects what is rendered.
* `grip_edge.W006`: `DEBUG` is on, and the CDN is not on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings as project
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags
from django.core.checks import Warning as Doubt
from django.db import connections
from django.http.request import split_domain_port, validate_host

from grip_edge_middleware.changes import Watches
from grip_edge_middleware.django.project import SETTING, read_settings
from grip_edge_middleware.errors import SettingsError
from grip_edge_middleware.outbox import TABLE
from grip_edge_middleware.settings import Settings, Varnish

MIDDLEWARE = "grip_edge_middleware.django.GripEdgeMiddleware"

# They set neither cookies nor anything else that decides who may see a page.
_MAY_STAND_BEFORE = {
    "corsheaders.middleware.CorsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
}
# What Django allows with DEBUG where ALLOWED_HOSTS is empty.
_LOCAL_HOSTS = [".localhost", "127.0.0.1", "[::1]"]


def register() -> None:
    """Have Django run the checks."""
    checks.register(check_settings, "grip_edge")
    checks.register(check_outbox, Tags.database)


def check_settings(app_configs: object = None, **_: object) -> list[CheckMessage]:
    """Return what is wrong with `GRIP_EDGE`, or around it."""
    if not hasattr(project, SETTING) and MIDDLEWARE not in project.MIDDLEWARE:
        return []  # the app is there for its table only
    settings = _settings()
    if not isinstance(settings, Settings):
        return [*settings, *_of_middleware()]
    found = (_of_models(settings), _of_middleware(), _of_rendering(settings), _of_debug(settings))
    return [message for messages in found for message in messages]


def check_outbox(
    app_configs: object = None, databases: Sequence[str] | None = None, **_: object
) -> list[CheckMessage]:
    """Return whether the outbox has its table. It is asked only if databases are to be checked."""
    settings = _settings() if hasattr(project, SETTING) else None
    if not isinstance(settings, Settings) or settings.outbox is None:
        return []
    return [
        Doubt(
            f'the outbox is on, and the database "{alias}" has no table {TABLE}, so what is '
            "committed there is lost if the process is killed right after",
            hint=f'run "manage.py migrate grip_edge --database {alias}"',
            id="grip_edge.W003",
        )
        for alias in databases or ()
        if TABLE not in connections[alias].introspection.table_names()
    ]


def _settings() -> Settings | list[CheckMessage]:
    try:
        return Settings.parse(read_settings(), os.environ)
    except SettingsError as error:
        return [
            Error(f"GRIP_EDGE: {m.path}: {m.problem}", hint=m.hint or None, id="grip_edge.E001")
            for m in error.mistakes
        ]


def _of_models(settings: Settings) -> Iterator[CheckMessage]:
    for path in Watches.of(settings.topics).unknown():
        yield Error(
            f'GRIP_EDGE: models: nothing that is imported is named "{path}", so its saves are not '
            "seen",
            hint='a model has the path of its module, as in "shop.models:Order"',
            id="grip_edge.E002",
        )


def _of_middleware() -> Iterator[CheckMessage]:
    if MIDDLEWARE not in project.MIDDLEWARE:
        yield Doubt(
            f'"{MIDDLEWARE}" is not in MIDDLEWARE, so no response is cached or held',
            hint="put it before all others",
            id="grip_edge.W001",
        )
        return
    before = project.MIDDLEWARE[: list(project.MIDDLEWARE).index(MIDDLEWARE)]
    for other in before:
        if other not in _MAY_STAND_BEFORE:
            yield Doubt(
                f'"{other}" stands before "{MIDDLEWARE}" in MIDDLEWARE, so what it does to a '
                "response, as setting a cookie, comes after the response was made cacheable",
                hint="put ours before it",
                id="grip_edge.W002",
            )


def _of_rendering(settings: Settings) -> Iterator[CheckMessage]:
    """Pages are rendered by a request of ours: of `origin`, or of http://localhost."""
    origin = urlsplit(settings.origin or "http://localhost")
    allowed: Any = project.ALLOWED_HOSTS or (_LOCAL_HOSTS if project.DEBUG else [])
    if not validate_host(split_domain_port(origin.netloc)[0], allowed):
        yield Doubt(
            f"what is pushed is rendered for {origin.netloc}, which ALLOWED_HOSTS refuses",
            hint='set origin in GRIP_EDGE to the project\'s own URL, as in "https://example.org"',
            id="grip_edge.W004",
        )
    if project.SECURE_SSL_REDIRECT and origin.scheme != "https":
        yield Doubt(
            f"what is pushed is rendered for {origin.scheme}://{origin.netloc}, which "
            "SECURE_SSL_REDIRECT redirects",
            hint='set origin in GRIP_EDGE to the project\'s own URL, as in "https://example.org"',
            id="grip_edge.W005",
        )


def _of_debug(settings: Settings) -> Iterator[CheckMessage]:
    """A CDN keeps a 404 as well, and with DEBUG that tells strangers the URLconf."""
    if project.DEBUG and any(not _is_here(cdn) for cdn in settings.cdns):
        yield Doubt(
            "DEBUG is on, and the CDN is not on this machine: it may keep Django's technical "
            "answers, and show them to strangers",
            id="grip_edge.W006",
        )


def _is_here(cdn: object) -> bool:
    host = urlsplit(cdn.url).hostname if isinstance(cdn, Varnish) else None
    return host is not None and (host in ("localhost", "::1") or host.startswith("127."))
