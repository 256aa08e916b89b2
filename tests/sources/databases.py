"""Databases as the tests of several files want them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, event


def obey_savepoints(engine: Engine) -> None:
    """The recipe of SQLAlchemy's documentation for SQLite's savepoints."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")
