"""The launcher of the shipped edge."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import launch
import pytest
from clients import request
from launch import Edge, EdgeFailed, EdgeMissing
from servers import is_listening
from test_edge_config import eventually

pytestmark = pytest.mark.live


def test_line_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EdgeFailed, match="routes: expected 'nowhere' once, found it 0 times"):
        launch.write_copy("routes", tmp_path, {"nowhere": ""})


def test_missing_program_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "PATH", "")

    with pytest.raises(EdgeMissing, match="apt-get install pushpin varnish varnish-modules"):
        Edge().start()


def test_failed_start_shows_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(launch.VARNISH_PARAMETERS, "no_such_parameter", "1")

    with pytest.raises(EdgeFailed, match="no_such_parameter"):
        Edge().start()


def test_services_stop_and_start_on_their_ports(edge: Edge) -> None:
    edge.stop_varnish()
    assert not is_listening(edge.cache_port)
    edge.start_varnish()
    edge.stop_pushpin()
    assert not is_listening(edge.client_port)
    edge.start_pushpin()

    assert request(edge.url, method="PURGEKEYS").status == 403


def test_paused_service_hangs_until_resumed(edge: Edge) -> None:
    edge.pause_varnish()
    with pytest.raises(TimeoutError):
        request(edge.cache_url, method="PURGEKEYS", timeout_s=0.2)
    edge.resume_varnish()
    edge.pause_pushpin()
    with pytest.raises(TimeoutError):
        request(edge.url, method="PURGEKEYS", timeout_s=0.2)
    edge.resume_pushpin()

    assert request(edge.url, method="PURGEKEYS").status == 403


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_survives_the_launcher(edge: Edge, number: signal.Signals) -> None:
    ports = [port for port, _ in zip(launch.free_ports(), range(4), strict=False)]
    names = ("--app-port", "--client-port", "--control-port", "--cache-port")
    options = [text for name, port in zip(names, ports, strict=True) for text in (name, str(port))]
    command = [sys.executable, str(launch.HERE / "launch.py"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("GRIP_URL") for line in process.stdout)
        descendants = launch.process_tree(process.pid)[1:]
        assert len(descendants) == 7
        os.kill(process.pid, number)

    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in descendants), 10)
    # What was killed could not tidy up.
    shutil.rmtree(f"/tmp/edge-{process.pid}-{ports[1]}", ignore_errors=True)
