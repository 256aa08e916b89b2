"""Whether the databases that the app has opened have the outbox's table.

No ORM is imported: who has a database has imported it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

from grip_edge_middleware.cli.findings import Finding, ok, warning, wrong
from grip_edge_middleware.outbox import TABLE


def outboxes() -> Iterator[Finding]:
    """Look into each database; yield how it is there."""
    tables = [*_of_sqlalchemy(), *_of_django()]
    for name, has_table in tables:
        yield _finding(name, has_table)
    if not tables:
        yield warning(
            "outbox",
            "the app has opened no database of SQLAlchemy's or Django's yet, so nobody can look",
            f"see yourself that there is a table {TABLE}",
        )


def _finding(name: str, found: bool | Exception) -> Finding:
    about = f"outbox {name}"
    if isinstance(found, Exception):
        return wrong(about, f"cannot be asked: {type(found).__name__}", "is the database running?")
    if not found:
        return wrong(
            about,
            f"there is no table {TABLE}, so no change outlives a killed process",
            "create_outbox(metadata) and a migration, or the Django app "
            '"grip_edge_middleware.django" and migrate',
        )
    return ok(about, f"has its table {TABLE}")


def _of_sqlalchemy() -> Iterator[tuple[str, bool | Exception]]:
    sqlalchemy: Any = sys.modules.get("sqlalchemy")
    if sqlalchemy is None:
        return
    # Nobody keeps a list of them.
    engines = [x for x in gc.get_objects() if type(x) is sqlalchemy.Engine]
    for engine in engines:
        if not engine.dialect.is_async:
            yield engine.url.render_as_string(), _ask(lambda e=engine: _has_table(sqlalchemy, e))


def _has_table(sqlalchemy: Any, engine: Any) -> bool:
    return bool(sqlalchemy.inspect(engine).has_table(TABLE))


def _of_django() -> Iterator[tuple[str, bool | Exception]]:
    db: Any = sys.modules.get("django.db")
    conf: Any = sys.modules.get("django.conf")
    if db is None or conf is None or not conf.settings.configured:
        return
    for alias in db.connections:
        connection = db.connections[alias]
        if connection.settings_dict["ENGINE"] != "django.db.backends.dummy":
            yield alias, _ask(lambda c=connection: TABLE in c.introspection.table_names())


def _ask(look: Any) -> bool | Exception:
    try:
        return bool(look())
    except Exception as error:
        return error
