"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin"
DISTRIBUTIONS = (
    "django",
    "django-grip",
    "flask",
    "gripcontrol",
    "grip-edge-middleware",
    "httpx2",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "werkzeug",
)
PROGRAMS = {"pushpin": "--version", "varnishd": "-V", "valgrind": "--version"}


def machine() -> dict[str, object]:
    """Return the processor, the memory and the system."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
    }


def versions() -> dict[str, str]:
    """Return the versions of whatever takes part."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in DISTRIBUTIONS},
        **dict(_programs()),
    }


def missing(programs: tuple[str, ...]) -> list[str]:
    """Return which of the programs are not installed."""
    return [name for name in programs if shutil.which(name, path=PATH) is None]


def _programs() -> Iterator[tuple[str, str]]:
    for name, option in PROGRAMS.items():
        if not missing((name,)):
            said = subprocess.run(
                [name, option], capture_output=True, text=True, env={**os.environ, "PATH": PATH}
            )
            if (found := re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)) is not None:
                yield name, found[0]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(
        r"^model name\s*: (.*)", info.read_text() if info.exists() else "", re.MULTILINE
    )
    return found[1] if found else platform.processor()
