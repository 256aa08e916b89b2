"""The shop: counters that everybody watches."""

import json
import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped, mapped_column

from grip_edge_middleware import GripEdge

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class Counter(db.Model):
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(default=0)


app.config["GRIP_EDGE"] = {
    "grip_url": "http://localhost:5561",
    "cdn": "varnish://localhost:6081",
    "topics": {
        "counter-{name}": {
            "routes": ["/counters/<name>"],
            "models": [Counter],
            "hold": "stream",
        },
    },
}
edge = GripEdge(app)


@app.get("/counters/<name>")
def show(name):
    data = json.dumps({"value": db.get_or_404(Counter, name).value})
    return app.response_class(f"data: {data}\n\n", mimetype="text/event-stream")


@app.post("/counters/<name>/increment")
def increment(name):
    db.get_or_404(Counter, name).value = Counter.value + 1
    db.session.commit()
    return "", 204


@app.post("/counters/<name>/try")
def try_it(name):
    db.get_or_404(Counter, name).value = 99
    db.session.flush()
    db.session.rollback()
    return "", 204
