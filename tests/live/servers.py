"""Apps on a port, for tests: in a thread, or any command as a process."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from clients import request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from wsgiref.types import WSGIApplication


@contextmanager
def wsgi_server(app: WSGIApplication, port: int) -> Iterator[None]:
    """Serve a WSGI app from threads of this process."""
    server = make_server("127.0.0.1", port, app, ThreadingServer, QuietHandler)
    # A short poll: leaving waits for one of them.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def command_server(
    command: Sequence[str],
    port: int,
    *,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 20.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server as a process, e.g. `[sys.executable, "-m", "uvicorn", ...]`, once it listens."""
    process = subprocess.Popen(command, env={**os.environ, **(env or {})})
    try:
        wait_until_listening(process, port, timeout_s)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_listening(process: subprocess.Popen[bytes], port: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_listening(port):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{process.args!r} does not listen on {port}")
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until_reached(url: str, timeout_s: float = 20.0) -> None:
    """Wait until Varnish asks the app again: not in the quarter of a second after a refusal."""
    deadline = time.monotonic() + timeout_s
    # Never from the cache, which would say nothing of the app.
    while request(f"{url}?{time.monotonic_ns()}").status == 503:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url} is not answered by the app")


class ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # The default of 5 refuses connections in a burst.
    request_queue_size = 512


class QuietHandler(WSGIRequestHandler):
    # Else the second of two small writes waits 40 ms for the acknowledgement of the first.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
