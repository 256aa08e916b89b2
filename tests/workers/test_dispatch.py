"""`grip-edge dispatch`: workers only write, and one process sends."""

from __future__ import annotations

from pathlib import Path

from tests.workers.harness import Site


def test_only_the_dispatcher_sends_whoever_was_there_first(store: object, tmp_path: Path) -> None:
    with Site(tmp_path, store, dispatch="external") as site:
        site.create("before", "after")
        first = site.start("gunicorn", workers=2)
        first.save("before")
        dispatcher = site.start("dispatch")
        site.wait_until_told({"before": 1})
        second = site.start("uvicorn", workers=2)
        first.save("after")
        second.save("after")
        site.wait_until_told({"after": 2})
        sent = [*site.sent("before").published, *site.sent("after").published]
        ended = dispatcher.stop()

    # It renders by the app that it imports.
    assert {item.by for item in sent} == {dispatcher.process.pid}
    assert ended == 0


def test_a_dispatcher_without_an_app_asks_the_origin(store: object, tmp_path: Path) -> None:
    with Site(tmp_path, store, dispatch="external") as site:
        site.create("blue")
        machine = site.start("gunicorn")
        workers = machine.pids()
        dispatcher = site.start("dispatch", of="settings", origin=machine.url)
        machine.save("blue")
        site.wait_until_told({"blue": 1})
        ended = dispatcher.stop()

    assert {item.by for item in site.sent("blue").published} == workers
    assert ended == 0


def test_a_stopped_dispatcher_leaves_what_comes_to_its_successor(
    store: object, tmp_path: Path
) -> None:
    with Site(tmp_path, store, dispatch="external") as site:
        site.create("blue")
        machine = site.start("gunicorn")
        site.start("dispatch").stop()
        machine.save("blue")
        successor = site.start("dispatch")
        site.wait_until_told({"blue": 1})

    assert {item.by for item in site.sent("blue").published} == {successor.process.pid}
