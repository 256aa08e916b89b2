"""What the embedded edge costs: many streams and one publish, in one process."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from clients import StreamClient, connected, publish
from launch import free_ports
from servers import command_server, wsgi_server

pytestmark = pytest.mark.lab

CLIENTS = 500
PROGRAM = """
import sys
from grip_edge_middleware.devedge import DevEdge

app, clients, control, cache = map(int, sys.argv[1:])
DevEdge(f"http://127.0.0.1:{app}").serve(
    client_port=clients, control_port=control, cache_port=cache
)
"""


def app(environ: Any, start_response: Any) -> list[bytes]:
    headers = {
        "Content-Type": "text/event-stream",
        "Surrogate-Control": "max-age=60",
        "Grip-Hold": "stream",
        "Grip-Channel": "crowd",
    }
    start_response("200 OK", list(headers.items()))
    return [b"data: 0\n\n"]


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_500_streams_and_one_publish() -> None:
    ports = [port for port, _ in zip(free_ports(), range(4), strict=False)]
    app_port, client_port, control_port, _ = ports
    command = [sys.executable, "-c", PROGRAM, *map(str, ports)]

    async def scenario(pid: int) -> None:
        url = f"http://127.0.0.1:{client_port}/crowd"
        idle_mb, began_s = resident_mb(pid), cpu_s(pid)
        async with connected(StreamClient(url) for _ in range(CLIENTS)) as clients:
            for client in clients:
                await client.event(lambda data: data == "0")
            held_mb, held_s = resident_mb(pid), cpu_s(pid)
            published = time.monotonic()
            await asyncio.to_thread(
                publish,
                f"http://127.0.0.1:{control_port}",
                "crowd",
                **{"http-stream": {"content": "data: 1\n\n"}},
            )
            events = [await client.event(lambda data: data == "1") for client in clients]
        assert len(events) == CLIENTS
        print(
            f"\n{CLIENTS} streams on the embedded edge:"
            f" {idle_mb:.0f} MB idle, {held_mb:.0f} MB held;"
            f" CPU {held_s - began_s:.2f} s to connect, {cpu_s(pid) - held_s:.2f} s to publish;"
            f" delivered in {(max(e.at for e in events) - published) * 1000:.0f} ms"
        )

    with (
        wsgi_server(app, app_port),
        command_server(command, client_port, env={"PYTHONPATH": str(Path.cwd())}) as process,
    ):
        asyncio.run(scenario(process.pid))
