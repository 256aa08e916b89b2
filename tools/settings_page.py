"""Write docs/settings.md from the code: `make docs` does it, and a test says when it is due.

python -m tools.settings_page
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from grip_edge_middleware.reference import ENTRIES, SETTINGS, Entry, Setting

PAGE = Path(__file__).parents[1] / "docs/settings.md"

OPENING = """\
<!-- Written by tools/settings_page.py from grip_edge_middleware/reference.py and settings/. -->
# Settings

One dict. Flask reads it from `app.config["GRIP_EDGE"]`; elsewhere it is given to
`GripEdge(settings=...)` or to `Middleware(GripEdgeMiddleware, settings=...)`. All mistakes in it
are reported at start, at once, each with the nearest valid name.

*Expected* is what the error about a wrong value says. Secrets may come from the environment, so
that they need not be in the dict; what the dict says prevails.
"""

GROUPS = {
    ("topic",): ("For a topic", "They stand in an entry of `topics`."),
    ("top", "topic", "route"): (
        "For a route, a topic, or all",
        "They may stand in a route's dict, in a topic's, or at the top level; the narrowest wins.",
    ),
    ("top", "topic"): (
        "For a topic, or all",
        "They may stand in a topic's dict, or at the top level; the narrower wins.",
    ),
    ("top",): ("At the top level", "They stand in the dict itself."),
}

KEYS = """\
## Keys and signatures

`GRIP_VERIFY_KEY` is what Pushpin's `sig_key` is: a secret of 32 random bytes or more, or the
public half of an EC P-256 or RSA key as PEM, DER or JWK; `base64:...` if it is not plain text. It
is for all proxies whose URL has no `verify-key` of its own. Fastly's is built in.

A `grip_url` may have these parameters: `key`, the token with which to publish, or the secret that
signs one if there is an `iss`; `verify-key` and `verify-iss`, which say what a request from this
proxy is signed with.
"""


def page() -> str:
    """Return the whole page."""
    links = [f"[`{setting.name}`](#{setting.name})" for setting in SETTINGS]
    return "\n".join(
        [
            OPENING,
            f"All: {', '.join(links)}.\n",
            *_groups(),
            "## Dicts within\n",
            *map(_entry, ENTRIES),
            KEYS,
        ]
    )


def _groups() -> Iterator[str]:
    for levels, (title, where) in GROUPS.items():
        yield f"## {title}\n\n{where}\n"
        yield from (_setting(setting) for setting in SETTINGS if setting.levels == levels)


def _setting(setting: Setting) -> str:
    facts = {
        "Default": f"`{setting.default}`" if setting.default else "",
        "Unit": setting.unit,
        "Expected": _code(setting.expected),
        "Environment": ", ".join(f"`{name}`" for name in setting.environ),
        "Source": f"<{setting.source}>" if setting.source else "",
    }
    lines = [f"* {name}: {value}" for name, value in facts.items() if value]
    return "\n".join([f"### `{setting.name}`\n", setting.meaning, "", *lines, ""])


def _code(expected: str) -> str:
    """Return an expectation; what is written as in Python looks so."""
    return re.sub(r'("[^"]*"|\{.*?\}+|https?://\S+[^,\s]|\?\S+|None|True|False)', r"`\1`", expected)


def _entry(entry: Entry) -> str:
    rows = [f"* `{name}`: {meaning}" for name, meaning in entry.keys.items() if name != "..."]
    rest = [f"* {meaning}" for name, meaning in entry.keys.items() if name == "..."]
    return "\n".join([f"### {entry.title}\n", *rows, *rest, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
