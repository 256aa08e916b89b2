"""An app that awaits nothing need not have greenlet, which SQLAlchemy 2.1 does not bring."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
sys.modules["greenlet"] = None  # as where it is not installed
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session
from sqlalchemy.orm import sessionmaker
from grip_edge_middleware import GripEdge
from grip_edge_middleware.testing import recording

class Base(DeclarativeBase):
    pass

class Score(Base):
    __tablename__ = "score"
    id: Mapped[int] = mapped_column(primary_key=True)

topics = {"score-{id}": {"routes": ["/<int:id>"], "models": [Score]}, "table": {}}
edge = GripEdge(settings={"cdn": "varnish://127.0.0.1:9", "topics": topics}, environ={})
engine = create_engine("sqlite://")
edge.follow(engine)
Base.metadata.create_all(engine)
with recording(edge) as recorded, scoped_session(sessionmaker(engine))() as session:
    session.add(Score(id=7))
    edge.submit("table", on_commit=session)
    session.commit()
    recorded.settle()
    print(*sorted({key for purge in recorded.purges for key in purge.keys}))
edge.close()
"""


def test_saves_are_told_without_it() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert {"score-7", "table"} <= {*done.stdout.split()}
