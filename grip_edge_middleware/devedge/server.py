"""Several ASGI apps on ports of loopback, in one event loop, served by uvicorn from a thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Self

import uvicorn

from grip_edge_middleware.types import ASGIApp

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
BACKLOG = 2048
START_TIMEOUT_S = 20.0
# What still runs then is cut off.
STOP_TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class Listener:
    """One app, and the port that it is served on; 0 is a free one."""

    name: str
    app: ASGIApp
    port: int = 0
    has_lifespan: bool = False
    has_sockets: bool = False


class Running:
    """Serves while a block lasts.

    with Running([Listener("clients", app)]) as running:
        get(running.url("clients"))
    """

    def __init__(
        self,
        listeners: Iterable[Listener],
        *,
        before_stop: Callable[[], None] = lambda: None,
        after_stop: Callable[[], Awaitable[None]] | None = None,
        # What lasts as long as the event loop serves.
        during: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self.ports: dict[str, int] = {}
        self._listeners = list(listeners)
        self._before_stop = before_stop
        self._after_stop = after_stop
        self._during = during
        self._servers: list[uvicorn.Server] = []
        self._thread = threading.Thread(target=self._run, name="devedge", daemon=True)
        self._is_ready = threading.Event()
        self._failure: BaseException | None = None

    def url(self, name: str) -> str:
        """Return where a listener is reached."""
        return f"http://{HOST}:{self.ports[name]}"

    def __enter__(self) -> Self:
        # Bound here: a port that is taken is the caller's error.
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(listening(each.port)) for each in self._listeners]
            stack.pop_all()
        for each, bound in zip(self._listeners, sockets, strict=True):
            self.ports[each.name] = bound.getsockname()[1]
        self._sockets = sockets
        self._thread.start()
        if not self._is_ready.wait(START_TIMEOUT_S) or self._failure is not None:
            raise RuntimeError("the development edge did not start") from self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    def wait(self) -> None:
        """Return on Ctrl-C or SIGTERM. For the main thread."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:
            self._failure = failure
        self._is_ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._servers = [uvicorn.Server(configuration(each)) for each in self._listeners]
        served = [
            asyncio.create_task(server.serve(sockets=[bound]))
            for server, bound in zip(self._servers, self._sockets, strict=True)
        ]
        ready = asyncio.create_task(self._wait_until_ready())
        try:
            with self._during():
                await asyncio.gather(*served)
        finally:
            ready.cancel()
            if self._after_stop is not None:
                await self._after_stop()

    async def _wait_until_ready(self) -> None:
        while not all(server.started for server in self._servers):
            await asyncio.sleep(0.005)
        self._is_ready.set()

    def _stop(self) -> None:
        self._before_stop()
        for server in self._servers:
            server.should_exit = True


def listening(port: int) -> socket.socket:
    """Return a socket that listens on loopback."""
    return socket.create_server((HOST, port), backlog=BACKLOG)


def configuration(listener: Listener) -> uvicorn.Config:
    """Return how uvicorn serves: nothing is added to what passes."""
    return uvicorn.Config(
        listener.app,
        http="h11",
        ws="wsproto" if listener.has_sockets else "none",
        lifespan="auto" if listener.has_lifespan else "off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
    )
