"""Workers that share nothing are told that they should."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SERVE = """
import logging, sys
from grip_edge_middleware import GripEdge

logging.basicConfig(stream=sys.stdout, format="%(message)s")
edge = GripEdge(settings={"topics": {"counters-TOPIC": {"routes": ["/"]}}})

def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]

wrapped = edge.wsgi(app)
for _ in range(2):
    wrapped({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: None)
print("served", flush=True)
sys.stdin.read()
"""


@contextmanager
def worker(topic: str) -> Iterator[list[str]]:
    """Start a process that serves two requests; yield what it has said by then."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE.replace("TOPIC", topic)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        said = list(iter(process.stdout.readline, "served\n"))
        yield said
        process.communicate()


def test_a_second_worker_says_what_to_set_once() -> None:
    with worker("a") as first, worker("a") as second:
        pass

    assert first == []
    assert len(second) == 1
    assert 'set store to "sqlite:///path/of/a/file", or to "redis://..."' in second[0]


def test_another_app_and_a_successor_are_no_second_worker() -> None:
    with worker("b") as first, worker("c") as other:
        pass
    with worker("b") as successor:
        pass

    assert first == other == successor == []
