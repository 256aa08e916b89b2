"""One throttle for all workers: together they send no more than one process would."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.recording import Answer, Recorded, acknowledge
from tests.workers.harness import Machine, Sent, Site, most_sends, paced

THROTTLE_S = 1.0
A_SECOND = 100


def save_through_all(site: Site, kind: str, lasts_s: int) -> int:
    """Save one counter by all workers; return the most that one process would send."""
    saves = A_SECOND * lasts_s
    site.create("blue")
    machine = site.start(kind, workers=4, throttle=THROTTLE_S)
    begun = time.monotonic()
    answers, _ = paced(lambda _: machine.save("blue"), saves, lasts_s)
    while len({answer.by for answer in answers}) < 4:  # one was overlooked so far
        answers.append(machine.save("blue"))
    took_s = time.monotonic() - begun
    site.wait_until_told(site.values())
    sent, most = site.sent("blue"), most_sends(took_s, THROTTLE_S)
    shares = sorted(Counter(answer.by for answer in answers).values())
    print(
        f"\n{site.store_kind:6} {kind:8} {len(answers)} saves in {took_s:.1f} s, "
        f"by workers {shares}: {sent.purges} purges, {len(sent.published)} publishes; "
        f"one process at most {most}"
    )
    return most


def sends_as_much_as_one(kind: str, store: object, folder: Path, lasts_s: int) -> None:
    with Site(folder, store) as site:
        most = save_through_all(site, kind, lasts_s)
        sent = site.sent("blue")

    assert sent.purges <= most
    assert len(sent.published) <= most
    assert sent.is_in_order, sent.published
    assert sent.repeated == 0


@pytest.mark.parametrize(
    ("kind", "store"), [("gunicorn", "sqlite"), ("uvicorn", "redis")], indirect=["store"]
)
def test_four_workers_send_as_much_as_one(kind: str, store: object, tmp_path: Path) -> None:
    sends_as_much_as_one(kind, store, tmp_path, lasts_s=2)


@pytest.mark.lab
@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_four_workers_send_as_much_as_one_for_longer(
    kind: str, store: object, tmp_path: Path
) -> None:
    sends_as_much_as_one(kind, store, tmp_path, lasts_s=5)


def test_without_a_store_that_they_share_each_has_its_own_throttle(tmp_path: Path) -> None:
    """The control."""
    with Site(tmp_path, None) as site:
        most = save_through_all(site, "gunicorn", lasts_s=2)
        sent = site.sent("blue")

    assert len(sent.published) > most
    assert not sent.is_in_order


def test_a_cdn_that_takes_its_time_keeps_no_publish_from_who_saves_all_the_time(
    store: object, tmp_path: Path
) -> None:
    """Else what is to be purged would change again and again while it is."""
    is_told, pause = threading.Event(), threading.Event()

    def purge_slowly(request: Recorded) -> Answer:
        if request.is_purge:
            pause.wait(0.15)
        return acknowledge(request)

    with Site(tmp_path, store, throttle=0.1) as site, ThreadPoolExecutor(1) as pool:
        site.server.respond = purge_slowly
        site.create("blue")
        machine = site.start("gunicorn", workers=2)
        saving = pool.submit(save_until, is_told, machine)
        try:
            site.server.wait_for(lambda seen: len(Sent.of(seen, "counter-blue").published) >= 3)
        finally:
            is_told.set()
        saving.result()

        assert site.sent("blue").is_in_order


def save_until(is_over: threading.Event, machine: Machine) -> None:
    while not is_over.wait(0.01):
        machine.save("blue")
