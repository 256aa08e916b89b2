"""A chat: Flask, Flask-SQLAlchemy and WebSockets, which Pushpin keeps and this app never sees.

    browser ── Pushpin (keeps the WebSockets) ── Varnish (caches) ── this app

Who connects is answered as a GET, what he says is a POST, and what is saved is pushed to all: the
view below is one of any Flask app, under any WSGI server. `python examples/demo.py chat` runs it
with its edge; beside an edge that runs already, `flask --app app run` in this folder will do. Then:

* Open a room in two windows through Pushpin, and say something in one. Both show it.
* Say it with `curl -d author=ann -d text=hello localhost:7999/rooms/lobby/`. Both show that too.
* Stop the app, and start it again: the WebSockets stay open meanwhile.

Environment: GRIP_URL (Pushpin's control port), GRIP_VERIFY_KEY (its sig_key), GRIP_EDGE_SECRET,
EDGE_CDN (the cache to purge), DATABASE_URL.
"""

import os
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Flask, jsonify, redirect, render_template, request
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from grip_edge_middleware import GripEdge

LATEST = 30
LONGEST = 300

db = SQLAlchemy(model_class=type("Base", (DeclarativeBase,), {}))
edge = GripEdge()
pages = Blueprint("pages", __name__, template_folder="../page")


class Message(db.Model):  # type: ignore[name-defined,misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    room: Mapped[str] = mapped_column(index=True)
    author: Mapped[str]
    text: Mapped[str]


GRIP_EDGE: dict[str, Any] = {
    "grip_url": os.environ.get("GRIP_URL", "http://127.0.0.1:5561"),
    "cdn": os.environ.get("EDGE_CDN", "varnish://127.0.0.1:6081"),
    "throttle": 0.1,
    "topics": {
        "room-{name}": {
            "routes": [
                "/rooms/<name>/",
                {"path": "/rooms/<name>/socket", "hold": "ws", "receive": True},
            ],
            "models": [{"model": Message, "params": {"name": "room"}}],
        },
    },
}


@pages.get("/")
def index() -> ResponseReturnValue:
    return redirect("/rooms/lobby/")


@pages.get("/rooms/<name>/")
def room(name: str) -> str:
    return render_template("room.html", name=name, **read_room(name))


@pages.post("/rooms/<name>/")
def say_without_a_socket(name: str) -> ResponseReturnValue:
    say(name, request.form.get("author", ""), request.form.get("text", ""))
    return redirect(f"/rooms/{name}/", 303)


@pages.get("/rooms/<name>/socket")
def connect(name: str) -> ResponseReturnValue:
    """Answer what a room shows: for who connects, and, pushed, for who is connected."""
    if edge.socket and edge.socket.is_opening:
        edge.socket.meta["author"] = request.args.get("as", "")[:30]
    return jsonify(read_room(name))


@pages.post("/rooms/<name>/socket")
def hear(name: str) -> ResponseReturnValue:
    """Take a message. What this answers, its sender alone is told."""
    author = edge.socket.meta.get("author", "") if edge.socket else ""
    problem = say(name, author, request.get_data(as_text=True))
    return jsonify(error=problem) if problem else ("", 204)


def say(room: str, author: str, text: str) -> str:
    """Save a message; return what is wrong with it, if anything is."""
    if not text.strip() or len(text) > LONGEST:
        return f"a message has 1 to {LONGEST} characters"
    db.session.add(Message(room=room, author=author.strip() or "somebody", text=text.strip()))
    db.session.commit()
    return ""


def read_room(name: str) -> dict[str, Any]:
    query = select(Message).filter_by(room=name).order_by(Message.id.desc()).limit(LATEST)
    messages = db.session.scalars(query).all()
    return {"messages": [{"author": m.author, "text": m.text} for m in reversed(messages)]}


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    database = os.environ.get("DATABASE_URL", "sqlite:///chat.sqlite3")
    app.config["SQLALCHEMY_DATABASE_URI"] = database
    app.config["GRIP_EDGE"] = GRIP_EDGE
    app.config.update(config or {})
    app.register_blueprint(pages)
    db.init_app(app)
    edge.init_app(app)
    with app.app_context():
        db.create_all()
    return app


app = create_app()
