"""Half of the development edge as a process: `cache PORT APP_PORT`, or `proxy PORTS CACHE_PORT`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

# What it runs is the package beside these tests, installed or not.
sys.path.insert(0, str(Path(__file__).parents[2]))

from grip_edge_middleware.devedge import VERIFY_KEY
from grip_edge_middleware.devedge.asgi import as_app, as_socket_app
from grip_edge_middleware.devedge.cache import Cache
from grip_edge_middleware.devedge.control import control
from grip_edge_middleware.devedge.origin import UrlOrigin
from grip_edge_middleware.devedge.proxy import GripProxy
from grip_edge_middleware.devedge.server import Listener, Running
from grip_edge_middleware.types import Receive, Scope, Send


def cache(port: int, app_port: int) -> Running:
    """Return the cache, which asks the app at `app_port`."""
    origin = UrlOrigin(f"http://127.0.0.1:{app_port}")
    return Running([Listener("cache", as_app(Cache(origin)), port)], after_stop=origin.aclose)


def proxy(client_port: int, control_port: int, cache_port: int) -> Running:
    """Return the GRIP proxy, which asks the cache at `cache_port`."""
    origin = UrlOrigin(f"http://127.0.0.1:{cache_port}")
    grip_proxy = GripProxy(origin, sig_key=VERIFY_KEY)
    pages, sockets = as_app(grip_proxy), as_socket_app(grip_proxy)

    async def clients(scope: Scope, receive: Receive, send: Send) -> None:
        await (sockets if scope["type"] == "websocket" else pages)(scope, receive, send)

    return Running(
        [
            Listener("clients", clients, client_port, has_sockets=True),
            Listener("control", control(grip_proxy), control_port),
        ],
        before_stop=grip_proxy.close,
        after_stop=origin.aclose,
    )


HALVES: dict[str, Callable[..., Running]] = {"cache": cache, "proxy": proxy}

if __name__ == "__main__":
    half, *ports = sys.argv[1:]
    with HALVES[half](*map(int, ports)) as running:
        running.wait()
