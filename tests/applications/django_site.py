"""Sets up Django for one application of published packages, in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connection

from tests.applications.harness import Site

# A token is one visitor's, and its cookie would keep every page with a form out of all caches. So
# the middleware that asks for it is left out, and the token out of what is compared.
_TOKEN = rb'(?<=name="csrfmiddlewaretoken" value=")\w+'

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]


class _NoMigrations(dict[str, None]):
    """Has each app's tables made from its models: quicker, and as empty."""

    def __contains__(self, app: object) -> bool:
        return True

    def __missing__(self, app: str) -> None:
        return None


def set_up(directory: Path, **own: Any) -> Any:
    """Configure Django with an empty SQLite database, and return its WSGI app."""
    name = str(directory / "django.sqlite3")
    settings.configure(
        **{
            "ALLOWED_HOSTS": ["*"],
            "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name}},
            "DEFAULT_AUTO_FIELD": "django.db.models.AutoField",
            "EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend",
            "MEDIA_ROOT": str(directory),
            "MIGRATION_MODULES": _NoMigrations(),
            "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
            "SECRET_KEY": "dev",
            "SITE_ID": 1,
            "STATIC_URL": "/static/",
            "USE_TZ": True,
            **own,
        }
    )
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    return get_wsgi_application()


def templates(*processors: str) -> list[dict[str, Any]]:
    """Return the setting for templates of apps."""
    common = (
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
    )
    return [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": [*common, *processors]},
        }
    ]


def listen(site: Site, *of_themselves: bytes) -> None:
    """Have the site note the statements, and compare bodies without their tokens.

    Nor with what matches another pattern: it differs each time.
    """
    taken_out = re.compile(b"|".join((_TOKEN, *of_themselves)))

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        site.note_statement(sql)
        return execute(sql, params, many, context)

    connection.execute_wrappers.append(note)
    site.normalise = lambda body: taken_out.sub(b"", body)
