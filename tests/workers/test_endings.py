"""What becomes of a change when its worker ends, or was forked: it is sent, and once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.workers.harness import Site

NEVER_S = 3600.0

# Those of the file are forks' and threads' concern most.
pytestmark = pytest.mark.parametrize(
    "store", ["sqlite", pytest.param("redis", marks=pytest.mark.lab)], indirect=True
)

SERVERS = [
    pytest.param("gunicorn", (), 1, id="sync"),
    pytest.param("gunicorn", ("--preload",), 2, id="preload"),
    pytest.param("gunicorn", ("--worker-class=gthread", "--threads=4"), 2, id="gthread"),
    pytest.param("gunicorn", ("--worker-class=gevent",), 2, id="gevent"),
    pytest.param("uvicorn", (), 1, id="uvicorn"),
    pytest.param("uvicorn", (), 2, id="uvicorn, 2 workers"),
]


@pytest.mark.parametrize(("kind", "options", "workers"), SERVERS)
def test_what_waits_is_sent_once_when_the_server_is_stopped(
    kind: str, options: tuple[str, ...], workers: int, store: object, tmp_path: Path
) -> None:
    with Site(tmp_path, store, throttle=NEVER_S) as site:
        site.create("blue")
        machine = site.start(kind, *options, workers=workers)
        machine.save("blue")
        site.wait_until_told({"blue": 1})
        machine.save("blue")
        machine.save("blue")
        machine.stop(signal.SIGTERM)
        sent = site.sent("blue")

    # Of two workers each may have one to send.
    assert [item.said for item in sent.published][:: len(sent.published) - 1] == [1, 3]
    assert sent.is_in_order
    assert sent.repeated == 0


def test_workers_save_after_their_master_did(store: object, tmp_path: Path) -> None:
    """A thread and a connection of the master's are of no use in its workers."""
    with Site(tmp_path, store) as site:
        site.create("import", "blue")
        machine = site.start("gunicorn", "--preload", workers=2, saves_at_import="import")
        machine.save("blue")
        site.wait_until_told({"import": 1, "blue": 1})
        machine.stop()
        sent = [site.sent(name) for name in ("import", "blue")]

    assert [len(one.published) for one in sent] == [1, 1]


def test_a_worker_forks_after_it_was_used(store: object, tmp_path: Path) -> None:
    with Site(tmp_path, store, throttle=NEVER_S) as site:
        site.create("blue", "child")
        machine = site.start("gunicorn")
        machine.save("blue")
        site.wait_until_told({"blue": 1})
        machine.save("blue")
        ended = machine.ask("/fork?child").said
        machine.stop()
        sent = site.sent("blue")

        assert ended == 0
        assert [item.said for item in sent.published] == [1, 2]
        assert [item.said for item in site.sent("child").published] == [1]
