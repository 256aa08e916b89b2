"""Write the matrix of docs/compatibility.md from what its tests found; one of them says when.

python -m tools.compatibility_page
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.compatibility.matrix import Found, table, versions

PAGE = Path(__file__).parents[1] / "docs/compatibility.md"
# The matrix, and of what it was found.
WRITTEN = re.compile(
    r"(?<=<!-- written -->\n)(.*?)\n\nFound with .*?\n(?=<!-- /written -->)", re.DOTALL
)


def table_of(page: str) -> str:
    """Return the matrix that is on the page."""
    found = WRITTEN.search(page)
    return "" if found is None else found[1]


def with_table(page: str, found: Found) -> str:
    """Return the page with another matrix."""
    return WRITTEN.sub(lambda _: f"{table(found)}\n\nFound with {versions()}.\n", page)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(), Found.read()))
