"""Live counters: Flask, Flask-SQLAlchemy and SQLite behind a cache and a GRIP proxy.

    browser ── Pushpin (holds the connections) ── Varnish (caches) ── this app

The views below are ordinary: none of them knows of a channel or a push. `GRIP_EDGE` says which
responses show a counter, and that is all there is to it. `python examples/demo.py flask` runs it
with its edge; beside an edge that runs already, `flask --app app run` in this folder will do. Then:

* Open a counter in two windows through Pushpin and press the button: both move, and however fast
  you press, at most once a second.
* Reload: the first value comes "from the cache", however many windows are open.
* `curl -N localhost:7999/counters/coffees/events` and, beside it,
  `curl -X POST localhost:7999/counters/coffees/increment`.
* `curl -X POST localhost:7999/counters/anything/increment` makes a counter; the list shows it.
* Stop the app: pages still open and streams stay up. Start it again and press the button.

Environment: GRIP_URL (Pushpin's control port), EDGE_CDN (the cache to purge), DATABASE_URL.
"""

import json
import os
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Flask, Response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event, select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from grip_edge_middleware import GripEdge

db = SQLAlchemy(model_class=type("Base", (DeclarativeBase,), {}))
edge = GripEdge()
pages = Blueprint("pages", __name__, template_folder="../page")


class Counter(db.Model):  # type: ignore[name-defined,misc]
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(default=0)


GRIP_EDGE: dict[str, Any] = {
    "grip_url": os.environ.get("GRIP_URL", "http://127.0.0.1:5561"),
    "cdn": os.environ.get("EDGE_CDN", "varnish://127.0.0.1:6081"),
    "throttle": 1.0,
    "topics": {
        "counter-{name}": {
            "routes": [
                "/counters/<name>/",
                "/counters/<name>/value",
                {"path": "/counters/<name>/events", "hold": "stream"},
            ],
            "models": [Counter],
        },
        "counters": {
            "routes": ["/", {"path": "/counters/events", "hold": "stream"}],
            "models": [Counter],
        },
    },
}


@pages.get("/")
def index() -> str:
    edge.tag("pages")  # one more key: what to purge at the CDN when a template has changed
    return render_template("counters.html", **list_counters())


@pages.get("/counters/events")
def counters_events() -> Response:
    return event_stream(list_counters())


@pages.get("/counters/<name>/")
def counter_page(name: str) -> str:
    edge.tag("pages")
    return render_template("counter.html", **read_counter(name))


@pages.get("/counters/<name>/value")
def counter_value(name: str) -> Response:
    return Response(f"{read_counter(name)['value']}\n", mimetype="text/plain")


@pages.get("/counters/<name>/events")
def counter_events(name: str) -> Response:
    return event_stream(read_counter(name))


@pages.post("/counters/<string(maxlength=40):name>/increment")
def increment(name: str) -> ResponseReturnValue:
    add_one(name)
    if request.accept_mimetypes.best == "text/html":  # the form of a page without JavaScript
        return redirect(url_for("pages.counter_page", name=name), 303)
    return read_counter(name)


def add_one(name: str) -> None:
    counter = db.session.get(Counter, name)
    if counter is None:
        db.session.add(Counter(name=name, value=1))
    else:
        counter.value = Counter.value + 1  # computed by the database: increments at once all count
    try:
        db.session.commit()
    except IntegrityError:  # somebody else created it meanwhile
        db.session.rollback()
        add_one(name)


def read_counter(name: str) -> dict[str, Any]:
    return describe(db.get_or_404(Counter, name))


def list_counters() -> dict[str, Any]:
    counters = db.session.scalars(select(Counter).order_by(Counter.name)).all()
    return {
        "total": sum(counter.value for counter in counters),
        "counters": [describe(counter) for counter in counters],
    }


def describe(counter: Counter) -> dict[str, Any]:
    return {"name": counter.name, "value": counter.value}


def event_stream(data: Mapping[str, Any]) -> Response:
    """Answer one server-sent event: for who connects, and, pushed, for who is connected."""
    text = json.dumps({**data, "rendered": time.time()})
    return Response(f"data: {text}\n\n", mimetype="text/event-stream")


@event.listens_for(Engine, "connect")
def share_sqlite(connection: Any, _record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):  # many read while one writes
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    database = os.environ.get("DATABASE_URL", "sqlite:///counters.sqlite3")
    app.config["SQLALCHEMY_DATABASE_URI"] = database
    app.config["GRIP_EDGE"] = GRIP_EDGE
    app.config.update(config or {})
    app.register_blueprint(pages)
    db.init_app(app)
    edge.init_app(app)
    with app.app_context():
        db.create_all()
        for name in ("coffees", "deploys", "visitors"):
            db.session.merge(Counter(name=name))
        db.session.commit()
    return app


app = create_app()
