"""What `manage.py check` and `manage.py grip_edge` print."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.test import override_settings

from grip_edge_middleware.cli.status import WRONG_USE
from tests.middleware.django_project import OURS, project
from tests.sources import django_app

SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
SECURITY = "django.middleware.security.SecurityMiddleware"


@contextmanager
def sound(**changed: Any) -> Iterator[None]:
    """A project of which nothing is to be said, but for what is changed."""
    with project(**{"ALLOWED_HOSTS": ["localhost"], **changed}):
        yield


def check(**options: Any) -> str:
    """What `manage.py check` prints of ours."""
    stderr = io.StringIO()
    try:
        call_command("check", stdout=io.StringIO(), stderr=stderr, **options)
    except SystemCheckError as error:
        return str(error)
    return stderr.getvalue()


def test_a_sound_project_is_not_spoken_of() -> None:
    with sound():
        assert check() == ""


def test_a_project_that_has_only_the_table_is_not_spoken_of() -> None:
    assert check() == ""


def test_each_mistake_is_an_error() -> None:
    topics = {"t-{name}": {"routes": ["name:countr", "/t/<id>"], "hold": "steam"}}
    with sound(throtle=1, topics=topics):
        said = check()

    assert said.count("(grip_edge.E001)") == 4
    assert 'no URL is named "countr"\n\tHINT: did you mean "name:counter"?' in said
    assert 'GRIP_EDGE: throtle: unknown setting\n\tHINT: did you mean "throttle"?' in said
    assert "has no parameter 'name'" in said
    assert 'got "steam"' in said


def test_missing_settings_are_an_error() -> None:
    with override_settings(MIDDLEWARE=[OURS]):
        said = check()

    assert "(grip_edge.E001) GRIP_EDGE: GRIP_EDGE: missing from the project's settings" in said


def test_a_model_that_there_is_not_is_an_error() -> None:
    topics = {"t-{name}": {"models": ["django_app.Author:Author"]}}
    with sound(topics=topics):
        said = check()

    assert (
        '(grip_edge.E002) GRIP_EDGE: models: nothing that is imported is named "django_app' in said
    )


def test_a_project_without_the_middleware_is_warned() -> None:
    with sound(MIDDLEWARE=[]):
        assert f'(grip_edge.W001) "{OURS}" is not in MIDDLEWARE' in check()


def test_a_middleware_before_ours_is_named() -> None:
    with sound(MIDDLEWARE=[SECURITY, SESSIONS, OURS]):
        said = check()

    assert said.count("grip_edge.W002") == 1
    assert f'(grip_edge.W002) "{SESSIONS}" stands before "{OURS}"' in said


def test_an_outbox_without_its_table_is_named(tmp_path: Path) -> None:
    # Files both, since Django closes none in memory, and a thread looks at them.
    one, two = (
        {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / name)} for name in "ab"
    )
    with django_app.using(one), django_app.using(two, "other"), sound(outbox=True):
        made = check(databases=["default"])
        with connection.schema_editor() as editor:
            editor.delete_model(apps.get_model("grip_edge", "OutboxRow"))
        missing = check(databases=["default"])
        with connection.schema_editor() as editor:
            editor.create_model(apps.get_model("grip_edge", "OutboxRow"))

    assert made == ""
    assert '(grip_edge.W003) the outbox is on, and the database "default" has no table' in missing


@pytest.mark.parametrize(
    ("changed", "is_warned"),
    [
        ({"ALLOWED_HOSTS": ["example.org"]}, True),
        ({"ALLOWED_HOSTS": [], "DEBUG": True}, False),
        ({"ALLOWED_HOSTS": ["example.org"], "origin": "https://example.org"}, False),
        ({"ALLOWED_HOSTS": [".example.org"], "origin": "http://a.example.org:8000"}, False),
    ],
)
def test_a_host_that_is_refused_is_named(changed: dict[str, Any], is_warned: bool) -> None:
    with sound(**changed):
        said = check()

    assert ("(grip_edge.W004) what is pushed is rendered for localhost" in said) == is_warned


@pytest.mark.parametrize(
    ("origin", "is_warned"),
    [(None, True), ("http://localhost", True), ("https://localhost", False)],
)
def test_a_redirect_to_https_is_named(origin: str | None, is_warned: bool) -> None:
    with sound(SECURE_SSL_REDIRECT=True, origin=origin):
        assert ("(grip_edge.W005)" in check()) == is_warned


@pytest.mark.parametrize(
    ("cdn", "is_warned"),
    [
        ("varnish://127.0.0.1:6081", False),
        ("varnish://cache.example.org:6081", True),
        ({"fastly": {"service_id": "a", "token": "b"}}, True),
    ],
)
def test_debug_before_a_cdn_is_warned(cdn: object, is_warned: bool) -> None:
    with sound(DEBUG=True, cdn=cdn):
        assert ("(grip_edge.W006)" in check()) == is_warned


# --- the command --------------------------------------------------------------------------------


def test_a_command_is_given_the_projects_edge(capsys: pytest.CaptureFixture[str]) -> None:
    with sound(), pytest.raises(SystemExit) as ended:
        call_command("grip_edge", "dispatch")

    assert ended.value.code == WRONG_USE
    assert "store: other processes do not share this one" in capsys.readouterr().err


def test_a_command_knows_names_as_paths(capsys: pytest.CaptureFixture[str]) -> None:
    with sound():
        call_command("grip_edge", "routes")

    assert "/counters/<slug:name>/" in capsys.readouterr().out


def test_a_command_may_ask_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    with sound():
        call_command("grip_edge", "explain", "--direct", "/counters/blue/")

    said = capsys.readouterr().out
    assert "GET /counters/blue/  200" in said
    assert "counter-blue" in said


def test_a_command_in_a_project_with_mistakes_lists_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with sound(throtle=1), pytest.raises(SystemExit) as ended:
        call_command("grip_edge", "dispatch")

    assert ended.value.code == WRONG_USE
    assert "throtle: unknown setting" in capsys.readouterr().err
