import os
import tempfile

import pytest

os.environ["DATABASE_URL"] = f"sqlite:///{tempfile.mkdtemp()}/shop.sqlite3"

from shop import Counter, app, db, edge  # it reads the environment


@pytest.fixture
def grip_edge():
    return edge


@pytest.fixture
def client():
    with app.app_context():
        db.create_all()
        with edge.suppress():
            db.session.add_all([Counter(name="a"), Counter(name="b")])
            db.session.commit()
    yield app.test_client()
    with app.app_context():
        db.drop_all()
        db.engine.dispose()
