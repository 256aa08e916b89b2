"""A worker that is asleep for longer than its claims are its own, and then goes on with them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.recording import Answer, Recorded, acknowledge
from tests.workers.harness import Sent, Site

LEASE_S = 1.0


def oversleep(site: Site, path: str, topic: str) -> Sent:
    """Have one worker sleep between purge and publish, and another tell what is newer."""
    sleeper = site.start("gunicorn", lease_s=LEASE_S)
    other = site.start("gunicorn", lease_s=LEASE_S)
    [pid] = sleeper.pids()

    def pause_once(request: Recorded) -> Answer:
        if request.is_purge and topic in request.keys:
            site.server.respond = acknowledge
            os.kill(pid, signal.SIGSTOP)
        return acknowledge(request)

    def published(seen: list[Recorded]) -> list[int]:
        return Sent.of(seen, topic).versions

    site.server.respond = pause_once
    sleeper.ask(f"{path}?first")
    site.server.wait_for(lambda seen: any(r.is_purge for r in seen))
    other.ask(f"{path}?last")
    newer = site.server.wait_for(lambda seen: len(published(seen)) == 1)
    os.kill(pid, signal.SIGCONT)
    # What comes late is an older version, and the newest is told after it.
    site.server.wait_for(lambda seen: len(published(seen)) >= 3)
    sent = site.sent_for(topic)
    assert min(sent.versions) < published(newer)[0]
    return sent


def test_the_last_value_is_told_after_what_a_sleeper_tells(store: object, tmp_path: Path) -> None:
    with Site(tmp_path, store, confirm_after=0, throttle=0.0) as site:
        site.create("blue")
        sent = oversleep(site, "/save/blue", "counter-blue")

    assert sent.published[-1].said == 2
    assert sent.versions[-1] == max(sent.versions)


def test_a_message_of_its_own_is_told_after_what_a_sleeper_tells(
    store: object, tmp_path: Path
) -> None:
    with Site(tmp_path, store, confirm_after=0, throttle=0.0) as site:
        sent = oversleep(site, "/say/blue", "said-blue")

    assert sent.published[-1].said == "last"
    assert sent.versions[-1] == max(sent.versions)
