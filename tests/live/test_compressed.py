"""A page that the app compresses for whoever asks, as it comes through the whole edge."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from clients import StreamClient
from servers import wsgi_server

from grip_edge_middleware import GripEdge

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from launch import Edge

pytestmark = [pytest.mark.live, pytest.mark.both_edges]


def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    headers = [("Content-Type", "text/event-stream"), ("Vary", "Accept-Encoding")]
    body = b"data: news\n\n"
    if "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
        headers.append(("Content-Encoding", "gzip"))
        body = gzip.compress(body)
    start("200 OK", headers)
    return [body]


def test_a_compressed_page_of_a_stream_is_unpacked_and_goes_on_as_text(edge: Edge) -> None:
    topics = {"packed": {"routes": ["/packed"], "hold": "stream"}}
    settings = {"cdn": edge.cdn_url, "grip_url": edge.control_url, "topics": topics}
    accepting = {"Accept-Encoding": "gzip"}

    async def streamed(grip_edge: GripEdge) -> tuple[StreamClient, StreamClient]:
        async with StreamClient(f"{edge.cache_url}/packed", accepting) as cached:
            await cached.end()
        async with StreamClient(f"{edge.url}/packed", accepting) as client:
            await client.event_at(0)
            grip_edge.submit("packed")
            await client.event_at(1)
        return cached, client

    with (
        closing(GripEdge(settings=settings, environ={})) as grip_edge,
        wsgi_server(grip_edge.wsgi(app), edge.app_port),
    ):
        cached, client = asyncio.run(streamed(grip_edge))

    assert cached.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(cached.body) == b"data: news\n\n"
    assert "Content-Encoding" not in client.headers
    assert [event.data for event in client.events] == ["news", "news"]
