"""The app of `grip-edge dev`: `python -m grip_edge_middleware.cli.served`, a process of its own.

It serves from a socket that it inherits, says over another how it fares, and ends when that closes:
with who started it, however that ends. In place of an app that does not start, its traceback is
served.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, cast

import uvicorn

from grip_edge_middleware.cli.named import named
from grip_edge_middleware.cli.status import WrongUse
from grip_edge_middleware.devedge.origin import as_asgi, is_asgi
from grip_edge_middleware.edge import GripEdge
from grip_edge_middleware.types import ASGIApp, Receive, Scope, Send

READY, FAILED, WRONG = "ready", "failed", "wrong"
"""What it says of the app: it is served; it did not start; there is no such app."""

# What still runs then is cut off.
STOP_TIMEOUT_S = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM, or until who started it has gone."""
    options = _parser().parse_args(arguments)
    # Ctrl-C reaches this process too; who started it ends it in order.
    signal.signal(signal.SIGINT, lambda *_: None)
    starter = socket.socket(fileno=options.starter)
    listener = socket.socket(fileno=options.listener)
    threading.Thread(target=_end_with, args=(starter,), daemon=True).start()
    try:
        app, news = load(options.app, options.app_dir, options.interface, options.factory), READY
    except WrongUse as wrong:
        print(f"grip-edge: {wrong}", file=sys.stderr, flush=True)  # noqa: T201
        app, news = broken(str(wrong)), WRONG
    except (Exception, SystemExit) as error:
        said = describe(error)
        print(said, file=sys.stderr, flush=True)  # noqa: T201
        app, news = broken(said), FAILED
    if not _serve(app, listener, starter, news):
        # Its lifespan failed, and uvicorn has said how.
        _serve(broken("the app failed when it started"), listener, starter, FAILED)


def load(path: str, app_dir: str, interface: str, is_factory: bool) -> ASGIApp:
    """Return the app that a path names, as one of ASGI's. WrongUse if it is none."""
    found: Any = _imported(path, app_dir)
    if isinstance(found, GripEdge) or not callable(found):
        kind = type(found).__name__
        raise WrongUse(f'{path}: expected an app, as in "shop:app", got an instance of {kind}')
    app = found() if is_factory else found
    if interface == "wsgi" or (interface == "auto" and not is_asgi(app)):
        return as_asgi(app)
    return cast(ASGIApp, app)


def _imported(path: str, app_dir: str) -> object:
    try:
        return named(path, app_dir)
    except WrongUse as error:
        wrong, cause = error, error.__cause__
    if cause is None or _is_missing(path.partition(":")[0], cause):
        raise wrong
    raise cause  # a mistake in the app, which the next change may mend


def _is_missing(module: str, error: BaseException) -> bool:
    is_no_module = isinstance(error, ModuleNotFoundError) and bool(error.name)
    return is_no_module and f"{module}.".startswith(f"{error.name}.")  # type: ignore[attr-defined]


def broken(said: str) -> ASGIApp:
    """Return an app that says why there is no other."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": f"{said}\n".encode(errors="replace")})

    return answer


def describe(error: BaseException) -> str:
    """Return a traceback that begins in the app."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return "importlib" in name or os.path.dirname(name) == os.path.dirname(__file__)  # noqa: PTH120


def _serve(app: ASGIApp, listener: socket.socket, starter: socket.socket, news: str) -> bool:
    """Serve until the end; return whether the app started at all."""
    config = uvicorn.Config(
        app,
        http="h11",
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
        log_level="info",
    )
    # Where it listens says nothing here.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = _Server(config, starter, news)
    with contextlib.suppress(SystemExit):  # that of a lifespan that failed
        server.run(sockets=[listener.dup()])
    return server.started


class _Server(uvicorn.Server):
    """Says when it serves, and takes SIGTERM for a request to end, not for a reason to die."""

    def __init__(self, config: uvicorn.Config, starter: socket.socket, news: str) -> None:
        super().__init__(config)
        self._starter = starter
        self._news = news

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._starter.sendall(f"{self._news}\n".encode())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the end. uvicorn's own would raise the signal again, and skip `atexit`."""
        self.should_exit = self.should_exit or sig == signal.SIGTERM


def _end_with(starter: socket.socket) -> None:
    starter.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="grip_edge_middleware.cli.served")
    parser.add_argument("app")
    parser.add_argument("--app-dir", default=".")
    parser.add_argument("--interface", default="auto")
    parser.add_argument("--factory", action="store_true")
    parser.add_argument("--listener", type=int, required=True)
    parser.add_argument("--starter", type=int, required=True)
    return parser


if __name__ == "__main__":
    main()
