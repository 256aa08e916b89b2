"""The development edge: a GRIP proxy and a cache in one process, in front of any app.

For development only: it has one process and no limits, forgets everything when it ends, and
believes whoever reaches its control port. It speaks to the app, to purgers and to publishers as
Pushpin and Varnish do with the files in `examples/edge/`; where it differs, it is wrong.

    from grip_edge_middleware.devedge import DevEdge

    edge = DevEdge(app)            # a WSGI app, an ASGI app, or "http://127.0.0.1:8000"
    edge.serve(client_port=7999)   # until Ctrl-C

The app's settings then say `"grip_url": "http://127.0.0.1:5561", "cdn": "varnish://127.0.0.1:6081"`.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path

from grip_edge_middleware.devedge.asgi import as_app, as_socket_app
from grip_edge_middleware.devedge.cache import Cache
from grip_edge_middleware.devedge.control import control
from grip_edge_middleware.devedge.origin import AppOrigin, origin_of
from grip_edge_middleware.devedge.proxy import GripProxy
from grip_edge_middleware.devedge.server import Listener, Running
from grip_edge_middleware.devedge.timeline import PATH, Timeline, saves_told, timeline_routes
from grip_edge_middleware.devedge.told import Told
from grip_edge_middleware.grip import SHIPPED_VERIFY_KEY
from grip_edge_middleware.types import ASGIApp, Receive, Scope, Send, WSGIApplication

__all__ = ["TIMELINE_PATH", "DevEdge"]

logger = logging.getLogger(__name__)

# As in examples/edge/pushpin.conf, so that an app is set up for both alike.
VERIFY_KEY = SHIPPED_VERIFY_KEY
CLIENT_PORT = 7999
CONTROL_PORT = 5561
CACHE_PORT = 6081
TIMELINE_PATH = PATH


class DevEdge:
    """The edge as one ASGI app, which its clients talk to.

    `control` is another: what publishers and purgers talk to. `cached` is the cache alone, as
    Varnish's port is. `serve` and `running` put each on a port of loopback.

    `control` also serves the timeline, a page that draws what happens: `TIMELINE_PATH`.
    """

    def __init__(
        self,
        app: ASGIApp | WSGIApplication | str,
        *,
        # The app's GRIP_VERIFY_KEY, if it is to check who asks.
        verify_key: str = VERIFY_KEY,
        # What publishers and purgers must send, if anything.
        control_key: str | None = None,
        # Where the processes of the app are watched for what they save; else GRIP_EDGE_WATCH.
        watch_folder: Path | None = None,
    ) -> None:
        self.verify_key = verify_key
        self._origin = origin_of(app)
        self.timeline = Timeline(open_url=lambda: self._client_url)
        self._client_url = ""
        self._watch_folder = watch_folder
        tell = self.timeline.tell
        self.cache = Cache(Told(self._origin, "cache", "app", tell), tell=tell)
        self.proxy = GripProxy(
            Told(self.cache, "proxy", "cache", tell), sig_key=verify_key, tell=tell
        )
        self.control = control(
            self.proxy, self.cache, key=control_key, routes=timeline_routes(self.timeline)
        )
        self.cached = as_app(self.cache)
        self._clients = as_app(Told(self.proxy, "client", "proxy", tell))
        self._sockets = as_socket_app(self.proxy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a client. The app in this process starts and ends with the edge."""
        if scope["type"] == "lifespan":
            app = self._app_of_this_process()
            app.state = scope.get("state", app.state)
            await app.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._sockets(scope, receive, send)
        else:
            await self._clients(scope, receive, send)

    def serve(
        self,
        *,
        client_port: int = CLIENT_PORT,
        control_port: int = CONTROL_PORT,
        cache_port: int = CACHE_PORT,
    ) -> None:
        """Serve on loopback until Ctrl-C."""
        with self.running(
            client_port=client_port, control_port=control_port, cache_port=cache_port
        ) as running:
            logger.info("the timeline: %s%s", running.url("control"), TIMELINE_PATH)
            running.wait()

    def running(
        self, *, client_port: int = 0, control_port: int = 0, cache_port: int = 0
    ) -> Running:
        """Serve from a thread while a block lasts; ports that are not given are free ones."""
        logger.warning("the development edge is for development only: never serve the public")
        running = Running(
            [
                Listener(
                    "clients", self, client_port, has_lifespan=self._has_app, has_sockets=True
                ),
                Listener("control", self.control, control_port),
                Listener("cache", self.cached, cache_port),
            ],
            before_stop=self._close,
            after_stop=self._origin.aclose,
            during=lambda: self._during(running),
        )
        return running

    def _during(self, running: Running) -> AbstractContextManager[None]:
        self._client_url = running.url("clients")
        return saves_told(self.timeline.tell, self._watch_folder)

    def _close(self) -> None:
        self.proxy.close()
        self.timeline.close()

    @property
    def _has_app(self) -> bool:
        return isinstance(self._origin, AppOrigin)

    def _app_of_this_process(self) -> AppOrigin:
        # Who does not know of lifespans raises, and the server goes on without: the app at a URL
        # has a server of its own.
        if not isinstance(self._origin, AppOrigin):
            raise NotImplementedError("the app is somewhere else")
        return self._origin
