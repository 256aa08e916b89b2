"""A worker that is asleep for longer than its claims are its own, and then goes on with them."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from tests.recording import DEADLINE_S, Answer, Recorded, acknowledge
from tests.workers.harness import Sent, Site

LEASE_S = 1.0


def oversleep(site: Site, path: str, topic: str) -> Sent:
    """Have one worker sleep between purge and publish while another tells what is newer.

    Return what was sent when what the first had to say was, too late.
    """
    sleeper = site.start("gunicorn", lease_s=LEASE_S)
    other = site.start("gunicorn", lease_s=LEASE_S)
    [pid] = sleeper.pids()
    is_answered = threading.Event()

    def pause_once(request: Recorded) -> Answer:
        site.server.respond = acknowledge
        is_answered.wait(DEADLINE_S)
        os.kill(pid, signal.SIGSTOP)
        return acknowledge(request)

    def versions(seen: list[Recorded]) -> list[int]:
        return Sent.of(seen, topic).versions

    site.server.respond = pause_once
    sleeper.ask(f"{path}?first")
    is_answered.set()
    site.server.wait_for(lambda seen: any(request.is_purge for request in seen))
    other.ask(f"{path}?last")
    [newest] = versions(site.server.wait_for(lambda seen: len(versions(seen)) == 1))
    os.kill(pid, signal.SIGCONT)
    site.server.wait_for(lambda seen: min(versions(seen)) < newest)
    return site.sent_for(topic)


def test_the_last_value_is_told_once_more_after_what_a_sleeper_tells(
    store: object, tmp_path: Path
) -> None:
    with Site(tmp_path, store, confirm_after=0, throttle=0.0) as site:
        site.create("blue")
        late = oversleep(site, "/save/blue", "counter-blue")
        site.server.wait_for(lambda seen: len(Sent.of(seen, "counter-blue").published) == 3)
        sent = site.sent("blue")

    assert late.versions[-1] < late.versions[0]
    assert sent.published[-1].said == 2
    assert sent.versions[-1] == max(sent.versions)


def test_who_believed_a_sleepers_own_message_is_made_to_ask(store: object, tmp_path: Path) -> None:
    """Nobody has the newer message any more, but the page shows what it said."""
    with Site(tmp_path, store, confirm_after=0, throttle=0.0) as site:
        late = oversleep(site, "/say/blue", "said-blue")
        site.server.wait_for(lambda seen: len(Sent.of(seen, "said-blue").markers) == 1)
        [marker] = site.sent_for("said-blue").markers

    assert [item.said for item in late.published] == ["last", "first"]
    assert int(marker.partition(".")[0]) == max(late.versions)
