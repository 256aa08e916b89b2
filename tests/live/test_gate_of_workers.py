"""The gate across workers: one renders a page while another writes what it shows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from board import Board, Page, Wired, board
from launch import end_with_parent

from tests.stores import redis_server
from tests.stores.redis_server import RedisServer

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
ROUNDS = 20

# Reads the settings, and then the topics that it is to submit and send.
WRITER = """
import json, sys
from grip_edge_middleware import GripEdge
settings = json.loads(sys.stdin.readline())
edge = GripEdge(settings=settings)
for line in sys.stdin:
    edge.submit(line.strip())
    print(edge.flush(20), flush=True)
edge.close()
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server.running() as server:
        yield server


@contextmanager
def writer(served: Board) -> Iterator[Callable[[Page], None]]:
    """Run another worker, which serves nothing; yield what has it submit and send a topic."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", WRITER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    to, answers = process.stdin, process.stdout
    # It has no app to render by, and a page that nobody streams needs only its purge.
    settings = {**served.settings, "origin": f"http://127.0.0.1:{served.edge.app_port}"}
    to.write(json.dumps(settings) + "\n")

    def submit(page: Page) -> None:
        to.write(page.topic + "\n")
        to.flush()
        assert answers.readline() == "True\n"

    with process:
        try:
            yield submit
        finally:
            to.close()
            process.wait(20)


def stale_pages(wired: Wired, store: str | None) -> int:
    """Count the pages that stay old in the cache: another worker wrote while they were made."""
    with board(wired, store=store, confirm_after_s=0) as served, writer(served) as submit:
        pages = [served.page("bare", number) for number in range(ROUNDS)]
        for page in pages:
            with ThreadPoolExecutor(1) as pool, served.after_read.holding(page.path) as held:
                pool.submit(page.fetch)
                held.wait()
                page.commit(1)
                submit(page)
        return sum(page.shown() != 1 for page in pages)


def test_a_write_of_another_worker_closes_the_gate(
    wired: Wired, redis: RedisServer, tmp_path: Path
) -> None:
    stale = {
        "memory": stale_pages(wired, None),
        "sqlite": stale_pages(wired, f"sqlite:///{tmp_path / 'store'}"),
        "redis": stale_pages(wired, redis.url),
    }

    print(f"\nwritten by another worker, of {ROUNDS}: {stale} stale")
    assert stale == {"memory": ROUNDS, "sqlite": 0, "redis": 0}
