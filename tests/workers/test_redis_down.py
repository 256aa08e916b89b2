"""Redis that hangs, refuses or loses everything: requests are answered, and nothing is lost that a
process still has."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.stores.redis_server import RedisServer
from tests.workers.harness import Machine, Site, numbered, paced

Fault = Callable[[RedisServer], AbstractContextManager[None]]

A_SECOND = 60
SCRIPTS = ("cmdstat_evalsha", "cmdstat_eval")
NAMES = list(numbered(10))


def hangs(redis: RedisServer) -> AbstractContextManager[None]:
    return redis.hanging()


@contextmanager
def refuses(redis: RedisServer) -> Iterator[None]:
    """It is started again empty, since nothing is on its disk."""
    redis.stop()
    yield
    redis.start()


OPTIONS = {"gunicorn": ("--worker-class=gthread", "--threads=4"), "uvicorn": ()}


def save_or_read(machine: Machine) -> Callable[[int], float]:
    def work(number: int) -> float:
        name = NAMES[number // 2 % len(NAMES)]
        return machine.ask(f"/save/{name}" if number % 2 else f"/counters/{name}").took_s

    return work


def survives(
    fault: Fault,
    kind: str,
    redis: RedisServer,
    folder: Path,
    lasts_s: int,
) -> None:
    with Site(folder, redis.url, throttle=0.2) as site:
        site.create(*NAMES)
        machine = site.start(kind, *OPTIONS[kind], workers=2)
        work = save_or_read(machine)
        before, _ = paced(work, A_SECOND, 1)
        with fault(redis):
            during, _ = paced(work, A_SECOND * lasts_s, lasts_s)
        back = time.monotonic()
        site.wait_until_told(site.values())
        recovery_s = time.monotonic() - back
        sent = [site.sent(name) for name in NAMES]

    usual, slow = statistics.median(before), statistics.median(during)
    print(
        f"\n{kind:8} Redis {fault.__name__} {lasts_s} s: requests take {1000 * slow:.1f} ms "
        f"({slow / usual:.1f} times as long), {1000 * max(during):.0f} ms at most; "
        f"all told {recovery_s:.2f} s after its return"
    )
    assert all(one.versions == sorted(one.versions) for one in sent)


@pytest.mark.parametrize(("fault", "kind"), [(hangs, "gunicorn"), (refuses, "uvicorn")])
def test_nothing_is_lost_that_a_process_has(
    fault: Fault, kind: str, redis: RedisServer, tmp_path: Path
) -> None:
    survives(fault, kind, redis, tmp_path, lasts_s=3)


@pytest.mark.lab
@pytest.mark.parametrize("fault", [hangs, refuses])
@pytest.mark.parametrize("kind", OPTIONS)
def test_nothing_is_lost_for_longer(
    fault: Fault, kind: str, redis: RedisServer, tmp_path: Path
) -> None:
    survives(fault, kind, redis, tmp_path, lasts_s=10)


def test_an_event_loop_goes_on_while_redis_hangs(redis: RedisServer, tmp_path: Path) -> None:
    with Site(tmp_path, f"{redis.url}?socket_timeout=10") as site, ThreadPoolExecutor(1) as pool:
        site.create("blue")
        machine = site.start("uvicorn")
        machine.ask("/counters/blue")
        with redis.hanging():
            matched = pool.submit(machine.ask, "/counters/blue")
            unmatched = [machine.ask("/plain") for _ in range(10)]
            has_waited = not matched.done()
        answered = matched.result()

    assert len(unmatched) == 10
    assert has_waited
    assert answered.said == 0


def test_redis_is_asked_twice_for_a_page_and_never_for_others(
    redis: RedisServer, tmp_path: Path
) -> None:
    def asked() -> int:
        """Return how many scripts it was asked to run: those ask what there is at once."""
        with redis.client() as client:
            counts = client.info("commandstats")
        return sum(counts[name]["calls"] for name in SCRIPTS if name in counts)

    # Nobody looks for what others left.
    with Site(tmp_path, redis.url, dispatch="external") as site:
        site.create("blue")
        machine = site.start("gunicorn")
        machine.ask("/counters/blue")
        begun = asked()
        machine.ask("/counters/blue")
        matched, begun = asked() - begun, asked()
        machine.ask("/plain")
        unmatched = asked() - begun

    assert (matched, unmatched) == (2, 0)


def test_a_worker_that_is_stopped_while_redis_hangs_ends(
    redis: RedisServer, tmp_path: Path
) -> None:
    with Site(tmp_path, redis.url, flush_timeout=1.0) as site:
        site.create("blue")
        machine = site.start("gunicorn")
        with redis.hanging():
            machine.save("blue")
            machine.stop(signal.SIGTERM)

        assert machine.process.returncode == 0
