"""The transport against a real server that behaves as badly as servers do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request
from grip_edge_middleware.transport import MAX_ANSWER_BYTES, NO_ANSWER, HttpTransport, retry_after_s
from tests.recording import Answer, RecordingServer

TIMEOUT_S = 0.3
# How late an answer may be refused: far less than the server would take.
LATEST_S = 5.0


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    with closing(HttpTransport(timeout_s=TIMEOUT_S)) as transport:
        yield transport


def ask(url: str) -> Request:
    return Request("POST", f"{url}/", {"X-Token": "UNLIKELY"}, b"body")


def refusal(transport: HttpTransport, request: Request) -> DeliveryError:
    began = time.monotonic()
    with pytest.raises(DeliveryError) as refused:
        transport.send(request)
    assert time.monotonic() - began < LATEST_S
    assert "UNLIKELY" not in f"{refused.value!r} {refused.value}"
    return refused.value


def test_a_request_arrives_as_it_was_sent(
    server: RecordingServer, transport: HttpTransport
) -> None:
    transport.send(Request("PURGEKEYS", f"{server.url}/", {"xkey-purge": "a b"}))
    transport.send(ask(server.url))

    purge, post = server.requests
    assert (purge.method, purge.headers["xkey-purge"], purge.body) == ("PURGEKEYS", "a b", b"")
    assert (post.method, post.headers["x-token"], post.body) == ("POST", "UNLIKELY", b"body")


@pytest.mark.parametrize("status", [200, 204, 301, 404, 429, 503])
def test_any_status_is_an_answer(
    server: RecordingServer, transport: HttpTransport, status: int
) -> None:
    server.respond = lambda _: Answer(status, {"Location": "/x", "Retry-After": "3"})

    answer = transport.send(ask(server.url))

    assert answer.status == status
    assert retry_after_s(answer) == 3
    assert len(server.requests) == 1


def test_header_names_come_back_in_lower_case(
    server: RecordingServer, transport: HttpTransport
) -> None:
    server.respond = lambda _: Answer(200, {"Grip-Edge-Purged": "2"}, b"abc")

    answer = transport.send(ask(server.url))

    assert answer.headers["grip-edge-purged"] == "2"
    assert answer.body == b"abc"


def test_a_connection_is_kept(server: RecordingServer, transport: HttpTransport) -> None:
    for _ in range(5):
        transport.send(ask(server.url))

    assert server.connection_count == 1


def test_a_server_that_hangs_is_given_up(server: RecordingServer, transport: HttpTransport) -> None:
    server.respond = lambda _: Answer(hangs=True)

    assert "no answer within 0.3 s" in str(refusal(transport, ask(server.url)))


def test_a_body_that_drips_is_given_up(server: RecordingServer, transport: HttpTransport) -> None:
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"
    server.respond = lambda _: Answer(raw=start, drips=b"x")

    assert "no answer within 0.3 s" in str(refusal(transport, ask(server.url)))


def test_headers_that_drip_are_given_up(server: RecordingServer, transport: HttpTransport) -> None:
    """One byte now and then resets a read's timeout, but not the deadline of the whole answer."""
    server.respond = lambda _: Answer(raw=b"HTTP/1.1 200 OK\r\nX-Slow: ", drips=b"x")
    hurry = threading.Timer(1.2 * LATEST_S, server.release.set)
    hurry.start()

    try:
        assert "no answer within 0.3 s" in str(refusal(transport, ask(server.url)))
    finally:
        hurry.cancel()


def test_a_refused_connection_is_an_error(transport: HttpTransport) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

        assert "ConnectError" in str(refusal(transport, ask(url)))


@pytest.mark.parametrize(
    "answer",
    [
        Answer(closes=True),
        Answer(raw=b"\x16\x03\x01\x02\x00garbage"),
        Answer(raw=b"SSH-2.0-OpenSSH_9.2\r\n"),
        Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"),
        Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"),
    ],
    ids=["closes", "tls", "ssh", "short", "bad length", "bad gzip"],
)
def test_what_is_no_answer_is_an_error(
    server: RecordingServer, transport: HttpTransport, answer: Answer
) -> None:
    server.respond = lambda _: answer

    refusal(transport, ask(server.url))


def test_a_huge_answer_is_not_read_to_its_end(
    server: RecordingServer, transport: HttpTransport
) -> None:
    server.respond = lambda _: Answer(body=b"x" * (MAX_ANSWER_BYTES * 20))

    assert "more than 65536 bytes" in str(refusal(transport, ask(server.url)))


def test_a_huge_header_is_an_error(server: RecordingServer, transport: HttpTransport) -> None:
    server.respond = lambda _: Answer(headers={"X-Huge": "x" * 1_000_000})

    refusal(transport, ask(server.url))


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:abc", "http://127.0.0.1:99999", "http://[::1", "http://a b", "ftp://x", ""],
)
def test_a_url_that_cannot_be_used_is_an_error(transport: HttpTransport, url: str) -> None:
    refusal(transport, ask(url))


def test_certificates_that_are_not_there_are_an_error(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/certificates.pem")

    assert "cannot be asked" in str(refusal(transport, ask("https://127.0.0.1:1")))


@pytest.mark.parametrize("token", ["UNLIKELY\nX: y", "UNLIKELY\r", "UNLIKELYü", "UNLIKELY\u20ac"])
def test_a_token_that_is_no_header_is_an_error_that_does_not_repeat_it(
    server: RecordingServer, transport: HttpTransport, token: str
) -> None:
    refusal(transport, Request("POST", f"{server.url}/", {"Authorization": f"Bearer {token}"}))


def test_a_failure_does_not_spoil_what_follows(
    server: RecordingServer, transport: HttpTransport
) -> None:
    answers = iter([Answer(hangs=True), Answer(raw=b"garbage\r\n\r\n"), Answer(closes=True)])
    server.respond = lambda _: next(answers, Answer(200))
    for _ in range(3):
        refusal(transport, ask(server.url))

    assert transport.send(ask(server.url)).status == 200


def test_a_closed_transport_opens_again(server: RecordingServer, transport: HttpTransport) -> None:
    transport.send(ask(server.url))
    transport.close()
    transport.close()

    assert transport.send(ask(server.url)).status == 200


def test_threads_share_a_transport(server: RecordingServer, transport: HttpTransport) -> None:
    statuses: list[int] = []

    def send() -> None:
        statuses.extend(transport.send(ask(server.url)).status for _ in range(20))

    threads = [threading.Thread(target=send) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * 100


def test_a_stream_is_left_after_its_beginning(server: RecordingServer) -> None:
    start = b"HTTP/1.1 200 OK\r\nX-Hold: stream\r\n\r\nfirst"
    server.respond = lambda _: Answer(raw=start, drips=b"x")

    with closing(HttpTransport(timeout_s=LATEST_S)) as transport:
        answer, goes_on = transport.begin(ask(server.url), linger_s=0.1)
    server.release.set()

    assert goes_on
    assert answer.headers["x-hold"] == "stream"
    assert answer.body.startswith(b"first")


def test_what_ends_is_begun_and_ended(server: RecordingServer, transport: HttpTransport) -> None:
    server.respond = lambda _: Answer(404, {}, b"whole")

    answer, goes_on = transport.begin(ask(server.url), linger_s=LATEST_S)

    assert not goes_on
    assert (answer.status, answer.body) == (404, b"whole")


def test_a_beginning_has_its_limits(server: RecordingServer, transport: HttpTransport) -> None:
    server.respond = lambda _: Answer(200, {}, bytes(MAX_ANSWER_BYTES * 2))
    answer, goes_on = transport.begin(ask(server.url), linger_s=LATEST_S)

    server.respond = lambda _: Answer(hangs=True)
    with pytest.raises(DeliveryError, match=f"{NO_ANSWER} {TIMEOUT_S} s"):
        transport.begin(ask(server.url), linger_s=LATEST_S)
    server.release.set()

    assert goes_on
    assert len(answer.body) < MAX_ANSWER_BYTES * 2


FORKING = """
import os, sys
from grip_edge_middleware.http import Request
from grip_edge_middleware.transport import HttpTransport

transport = HttpTransport(timeout_s=5.0)
ask = lambda who: transport.send(Request("POST", sys.argv[1] + "/" + who, {}, b""))
ask("before")
child = os.fork()
if not child:
    ask("child"); ask("child"); transport.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
ask("parent")
transport.close()
"""


def test_a_fork_gets_connections_of_its_own(server: RecordingServer) -> None:
    subprocess.run([sys.executable, "-c", FORKING, server.url], check=True, timeout=30)

    assert [request.path for request in server.requests] == [
        "/before",
        "/child",
        "/child",
        "/parent",
    ]
    assert server.connection_count == 2


CLOSING_IN_A_FORK = """
import os, signal, sys, threading
from grip_edge_middleware.transport import HttpTransport

transport = HttpTransport(timeout_s=5.0)
is_held, may_go = threading.Event(), threading.Event()

def hold():
    # What a thread that is just opening the client does.
    with transport._lock:
        is_held.set()
        may_go.wait()

threading.Thread(target=hold).start()
is_held.wait()
child = os.fork()
if not child:
    signal.alarm(5)
    transport.close()
    os._exit(0)
status = os.waitpid(child, 0)[1]
may_go.set()
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_closing_in_a_child_does_not_wait_for_a_lock_of_the_parent() -> None:
    done = subprocess.run([sys.executable, "-c", CLOSING_IN_A_FORK], timeout=30, check=False)

    assert done.returncode == 0
