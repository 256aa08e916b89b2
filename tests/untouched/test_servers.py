"""The same on the wire: what a client of a real server receives, byte for byte."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.compatibility.matrix import SERVERS
from tests.compatibility.servers import Process
from tests.recording import DEADLINE_S
from tests.untouched.cases import Case, cases
from tests.untouched.observed import Observed

KINDS = [(server, interface) for server in SERVERS for interface in server.commands]
# One in ten; not those that fail on the way, of which what arrives depends on time.
SOME = [
    case
    for case in cases()
    if case.fails in ("never", "before the start", "replaced")
    and not case.has_hints
    and case.kind != "file"
][::10]
# What a server says of itself and of the time.
THE_SERVERS = ("date", "server")


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Process]]:
    """All servers, started at once."""
    folder = tmp_path_factory.mktemp("servers")
    processes = {}
    for server, interface in KINDS:
        app = f"tests.untouched.served:{interface}"
        command = [part.replace("{app}", app) for part in server.commands[interface]]
        processes[f"{server.title} {interface}"] = Process(command, folder)
    yield processes
    for process in processes.values():
        process.kill()


def received(process: Process, case: Case, *more: str) -> bytes:
    """Ask on a connection of one's own, and return all that comes."""
    process.connect().close()
    lines = [f"{case.method} {case.path} HTTP/1.1", "Host: testserver", "Connection: close"]
    lines += [f"Accept: {case.accept}"] * bool(case.accept)
    with socket.create_connection(("127.0.0.1", process.port), DEADLINE_S) as connection:
        connection.sendall("\r\n".join([*lines, *more, "", ""]).encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def read(raw: bytes) -> Observed:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    kept = [(name, value) for name, value in pairs if name.lower() not in THE_SERVERS]
    return Observed([(status, kept)], [body])


@pytest.mark.parametrize("kind", [f"{server.title} {interface}" for server, interface in KINDS])
def test_what_arrives_is_the_same(processes: dict[str, Process], kind: str) -> None:
    added = 0
    for case in SOME:
        bare = read(received(processes[kind], case, "X-Bare: 1"))
        edged = read(received(processes[kind], case))

        assert edged.without_ours(case) == bare.without_ours(case), case
        added += edged.ours(case) != bare.ours(case)
    assert added, "the edge has done nothing"


def test_hypercorn_answers_500_for_a_wsgi_app_without_a_chunk(
    processes: dict[str, Process],
) -> None:
    """With the edge or without: so `docs/compatibility.md` says."""
    empty = next(c for c in cases() if (c.kind, c.fails, c.chunks) == ("generator", "never", ()))
    raw = received(processes["hypercorn wsgi"], empty, "X-Bare: 1")

    assert raw.startswith(b"HTTP/1.1 500")


def test_granian_drops_the_headers_of_a_wsgi_app_that_starts_when_its_body_is_read(
    processes: dict[str, Process],
) -> None:
    """PEP 3333 lets it. Ours are dropped with the app's own."""
    late = next(c for c in cases() if (c.kind, c.fails) == ("late generator", "never") and c.chunks)
    [(_, headers)] = read(received(processes["granian wsgi"], late, "X-Bare: 1")).starts

    assert {name.lower() for name, _ in late.lines} - {name for name, _ in headers}
