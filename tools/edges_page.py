"""Write the tables of docs/edges.md from `grip_edge_middleware/dialects.py`.

python -m tools.edges_page
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from grip_edge_middleware.dialects import CACHE_GROUPS, DIALECTS, Dialect

PAGE = Path(__file__).parents[1] / "docs/edges.md"

ALL = (*DIALECTS.values(), CACHE_GROUPS)
_SEPARATORS = {" ": "space", ",": "comma", ", ": "comma and space"}


def page(text: str) -> str:
    """Return the page with the tables as they are now."""
    for name, table in TABLES.items():
        opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(opening)
        _, _, after = rest.partition(closing)
        text = "".join([before, opening, *(f"{line}\n" for line in table()), closing, after])
    return text


def _said() -> Iterable[str]:
    return _table(
        ALL,
        {
            "": lambda d: d.title,
            "keys in": lambda d: f"`{d.header}`",
            "between them": lambda d: _SEPARATORS[d.separators[0]],
            "a key is": lambda d: "as it is" if d.is_exact else "escaped",
            "lifetime in": lambda d: f"`{d.control}`" if d.control else "`s-maxage`",
            "heeds `Vary`": lambda d: "yes" if d.varies else "no",
            "keeps long-polls": lambda d: "yes" if d.answers_polls else "no",
        },
    )


def _limits() -> Iterable[str]:
    return _table(
        ALL,
        {
            "": lambda d: d.title,
            "bytes of keys": lambda d: _number(d.max_bytes),
            "keys": lambda d: _number(d.max_keys),
            "bytes of a key": lambda d: _number(d.max_key_bytes),
            "`key_budget` by its name": lambda d: f"{d.budget:,}",
            "source": lambda d: " ".join(f"[{i}]({s})" for i, s in enumerate(d.sources, 1)),
        },
    )


def _purges() -> Iterable[str]:
    return _table(
        DIALECTS.values(),
        {
            "": lambda d: d.title,
            "keys in a request": lambda d: _number(d.purge_keys),
            "bytes of keys in it": lambda d: _number(d.purge_bytes),
            "everywhere after": lambda d: f"{d.settle_s:g} s",
        },
    )


def _rates() -> Iterable[str]:
    yield "| | a minute | at once |"
    yield "|---|---|---|"
    for dialect in DIALECTS.values():
        for plan, rate in dialect.rates.items():
            yield f"| {dialect.title}, {plan} | {rate.per_minute:,} | {rate.at_once:,} |"


def _table(
    dialects: Iterable[Dialect], columns: dict[str, Callable[[Dialect], str]]
) -> Iterable[str]:
    yield f"| {' | '.join(columns)} |".replace("|  |", "| |")
    yield "|---" * len(columns) + "|"
    for dialect in dialects:
        yield f"| {' | '.join(cell(dialect) for cell in columns.values())} |"


def _number(limit: int | None) -> str:
    return "" if limit is None else f"{limit:,}"


TABLES = {"said": _said, "limits": _limits, "purges": _purges, "rates": _rates}


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
