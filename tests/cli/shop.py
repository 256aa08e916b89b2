"""An app that commands are given, and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grip_edge_middleware.cli import main

Run = Callable[..., tuple[int, str, str]]

TOPICS = {
    "counter-{name}": {"routes": [{"path": "/counters/<name>/events", "hold": "stream"}]},
    "polled": {"routes": [{"path": "/polled", "hold": "response"}]},
    "plain": {"routes": ["/plain"]},
    "loose": {"routes": [{"path": "/loose", "hold": "stream"}], "recovery": None},
}


def runner(folder: Path, capsys: pytest.CaptureFixture[str], **settings: Any) -> Run:
    """Return what runs a command on an app with these settings: its status, stdout and stderr."""
    module = f"shop_of_{folder.name}"
    settings = {"topics": TOPICS, "grip_url": None, **settings}
    (folder / f"{module}.py").write_text(f"edge = {settings!r}\n")

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        named = ("--app", f"{module}:edge", "--app-dir", str(folder))
        status = main([command, *named, *arguments])
        return status, *capsys.readouterr()

    return run


def parse(out: str) -> Any:
    """Read what `--json` prints."""
    return json.loads(out)
