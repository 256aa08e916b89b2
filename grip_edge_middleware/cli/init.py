"""`grip-edge init`: the files to begin with: settings, and what configures the edge.

What configures Varnish and Pushpin is what the tests of this package run, but for the key.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from grip_edge_middleware.cli.screen import Screen, screen_options
from grip_edge_middleware.cli.status import OK, WrongUse

# In an installed package, and in its sources.
SHIPPED = (Path(__file__).parent / "edge", Path(__file__).parents[2] / "examples" / "edge")
SETTINGS, ENVIRONMENT, FOLDER = "grip_edge.py", "grip-edge.env", "edge"
PRIVATE_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Framework:
    """How a framework is wired, and how it writes a path."""

    wiring: str
    path: str


FRAMEWORKS: Mapping[str, Framework] = {
    "flask": Framework(
        """\
from grip_edge import GRIP_EDGE
from grip_edge_middleware import GripEdge

app.config["GRIP_EDGE"] = GRIP_EDGE
edge = GripEdge(app)""",
        "/items/<int:id>",
    ),
    "starlette": Framework(
        """\
from grip_edge import GRIP_EDGE
from grip_edge_middleware import GripEdge, GripEdgeMiddleware

edge = GripEdge(settings=GRIP_EDGE)
app = Starlette(routes=..., middleware=[Middleware(GripEdgeMiddleware, edge=edge)])""",
        "/items/{id:int}",
    ),
    "fastapi": Framework(
        """\
from grip_edge import GRIP_EDGE
from grip_edge_middleware import GripEdge, GripEdgeMiddleware

edge = GripEdge(settings=GRIP_EDGE)
app.add_middleware(GripEdgeMiddleware, edge=edge)""",
        "/items/{id:int}",
    ),
    "django": Framework(
        """\
# In settings.py, which has GRIP_EDGE then.
from grip_edge import GRIP_EDGE

INSTALLED_APPS += ["grip_edge_middleware.django"]
MIDDLEWARE = ["grip_edge_middleware.django.GripEdgeMiddleware", *MIDDLEWARE]""",
        "/items/<int:id>/",
    ),
    "asgi": Framework(
        """\
from grip_edge import GRIP_EDGE
from grip_edge_middleware import GripEdge

edge = GripEdge(settings=GRIP_EDGE)
app = edge.asgi(app)""",
        "/items/{id:int}",
    ),
    "wsgi": Framework(
        """\
from grip_edge import GRIP_EDGE
from grip_edge_middleware import GripEdge

edge = GripEdge(settings=GRIP_EDGE)
app = edge.wsgi(app)""",
        "/items/<int:id>",
    ),
}


@dataclass(frozen=True, slots=True)
class EdgeKind:
    """What runs in front of the app: its settings, its files, and what to do with them."""

    settings: str
    shipped: tuple[str, ...] = ()
    environment: str = ""
    next: tuple[str, ...] = ()


_LOCAL = """\
    # The GRIP proxy, which holds the clients: where it is told what to send them.
    "grip_url": "http://127.0.0.1:5561",
    # The cache: where it is told what to forget.
    "cdn": "varnish://127.0.0.1:6081",
"""
_VARNISHD = (
    "varnishd -F -j none -n /tmp/edge-varnish -a 127.0.0.1:6081 -f $PWD/edge/default.vcl "
    "-s malloc,64m -p http_resp_hdr_len=16k -p http_resp_size=64k -p workspace_backend=256k "
    "-p workspace_client=256k"
)
EDGES: Mapping[str, EdgeKind] = {
    "dev": EdgeKind(_LOCAL, next=("run the app behind an edge: grip-edge dev MODULE:APP",)),
    "pushpin-varnish": EdgeKind(
        _LOCAL,
        shipped=("default.vcl", "pushpin.conf", "routes"),
        environment="""\
# Pushpin signs its requests with it (sig_key in edge/pushpin.conf), and the app checks that.
GRIP_VERIFY_KEY={key}
""",
        next=(
            "install the edge: apt-get install pushpin varnish varnish-modules",
            f"start the cache: {_VARNISHD}",
            "start the GRIP proxy: pushpin --config=edge/pushpin.conf --merge-output",
            f"start the app on port 8000 with {ENVIRONMENT} in its environment",
            f"keep {ENVIRONMENT} and edge/pushpin.conf out of version control: both have the key",
        ),
    ),
    "fastly": EdgeKind(
        """\
    # Its service and token are in the environment: FASTLY_SERVICE_ID, FASTLY_API_TOKEN. Where
    # Fanout is told what to send is in GRIP_URL.
    "cdn": {"fastly": {}},
    "key_budget": "fastly",
""",
        shipped=tuple(
            f"fastly/{name}"
            for name in (
                "README.md",
                *(
                    f"{t}.vcl"
                    for t in ("recv", "hash", "miss", "pass", "fetch", "error", "deliver")
                ),
            )
        ),
        environment="""\
# The service that caches, and a token with the scope purge_select.
FASTLY_SERVICE_ID=
FASTLY_API_TOKEN=
# The service that has Fanout, and a token that may publish to it.
GRIP_URL=https://api.fastly.com/service/SERVICE_ID?key=TOKEN
""",
        next=(
            f"fill in {ENVIRONMENT}, and keep it out of version control",
            "read edge/README.md: nobody has run these snippets on Fastly yet",
            "add each edge/*.vcl to the service as a snippet of the type that it is named after",
        ),
    ),
}

SETTINGS_TEXT = '''\
"""What the edge caches, holds open and pushes.

{wiring}
"""

from typing import Any

GRIP_EDGE: dict[str, Any] = {{
{edge}    # Each topic is pushed once in so many seconds at most; the last change always arrives.
    "throttle": 1.0,
    "topics": {{
        # One thing that clients watch: its name is its channel, and the surrogate key of its pages.
        "item-{{id}}": {{
            "routes": [
                # A page that shows it: cached until the item changes.
                "{path}",
                # A stream of it: cached, held open, and told what this path answers from then on.
                {{"path": "{stream}", "hold": "stream"}},
            ],
            # What changes it when it is saved: a class, or its name.
            # "models": ["shop.models:Item"],
        }},
    }},
}}
'''


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Say how it is called."""
    parser = commands.add_parser(
        "init",
        parents=[screen_options()],
        help="write the files to begin with",
        description=f"Write {SETTINGS}, the settings to begin with, and what configures the edge. "
        "No file is overwritten without --force.",
    )
    parser.add_argument(
        "folder", nargs="?", default=".", metavar="DIR", help="where (default: here)"
    )
    parser.add_argument(
        "--framework",
        choices=FRAMEWORKS,
        default="flask",
        help="how the app is wired (default: flask)",
    )
    parser.add_argument(
        "--edge", choices=EDGES, default="dev", help="what runs in front of the app (default: dev)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the files; say which, and what comes next."""
    screen = Screen.of(options)
    folder = Path(options.folder)
    written = files(options.framework, options.edge, key=secrets.token_urlsafe(32))
    write(folder, written, is_forced=options.force)
    for name in written:
        screen.line(("wrote ", "green"), str(folder / name))
    steps = [] if options.folder == "." else [f"cd {shlex.quote(options.folder)}"]
    steps += next_steps(options.framework, options.edge)
    screen.line("")
    for step in steps:
        screen.line(("next  ", "bold"), step)
    screen.json({"written": [str(folder / name) for name in written], "next": steps})
    return OK


def files(framework: str, edge: str, *, key: str) -> dict[str, str]:
    """Return what is written, by the path in the folder. Only the edge's own files have the key."""
    kind = EDGES[edge]
    written = {SETTINGS: settings(FRAMEWORKS[framework], kind)}
    if kind.environment:
        written[ENVIRONMENT] = kind.environment.format(key=key)
    for name in kind.shipped:
        written[f"{FOLDER}/{Path(name).name}"] = with_key(shipped(name), key)
    return written


def settings(framework: Framework, kind: EdgeKind) -> str:
    """Return the text of the settings."""
    path = framework.path
    stream = f"{path.rstrip('/')}/events{'/' if path.endswith('/') else ''}"
    wiring = "\n".join(f"    {line}" if line else "" for line in framework.wiring.splitlines())
    return SETTINGS_TEXT.format(wiring=wiring, edge=kind.settings, path=path, stream=stream)


def shipped(name: str) -> str:
    """Return a file that this package ships."""
    for folder in SHIPPED:
        if (folder / name).is_file():
            return (folder / name).read_text()
    raise WrongUse(f"{name} is missing from this installation: install the package anew")


def with_key(text: str, key: str) -> str:
    """Return Pushpin's configuration with a key of its own; anything else as it is."""
    lines = text.splitlines(keepends=True)
    return "".join(f"sig_key={key}\n" if line.startswith("sig_key=") else line for line in lines)


def write(folder: Path, written: Mapping[str, str], *, is_forced: bool) -> None:
    """Write all files, or none. WrongUse if one is there already."""
    there = [name for name in written if (folder / name).exists()]
    if there and not is_forced:
        names = ", ".join(str(folder / name) for name in there)
        raise WrongUse(f"{names}: already there, so nothing was written; --force overwrites")
    try:
        for name in written:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for name, text in written.items():
            _write(folder / name, text, is_private=_is_private(name))
    except OSError as error:
        raise WrongUse(f"{error.filename}: {error.strerror}") from None


def next_steps(framework: str, edge: str) -> list[str]:
    """Return what to do with the files."""
    return [
        f"put your own topics into {SETTINGS}; how {framework} is wired is at its top",
        *EDGES[edge].next,
    ]


def _is_private(name: str) -> bool:
    return name == ENVIRONMENT or name.endswith("pushpin.conf")


def _write(path: Path, text: str, *, is_private: bool) -> None:
    mode = PRIVATE_MODE if is_private else 0o666
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        if is_private:
            path.chmod(PRIVATE_MODE)  # it may have been there
        file.write(text)
