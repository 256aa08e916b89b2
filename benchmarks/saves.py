"""What a change costs the thread that makes it: a `submit`, and a transaction that is watched.

`benchmarks/sources.py` measures the transactions, with an edge and without one.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import sources
from benchmarks.measure import Effort, in_turns
from benchmarks.results import Result, Target, at_most, at_most_times, result
from grip_edge_middleware import GripEdge

# Sends to nobody, and topics wait for their windows to end: the app's own thread is measured.
SETTINGS = {
    "throttle": 3_600.0,
    "flush_timeout": 0.0,
    "topics": {"counters": {}, "counter-{name}": {}},
}
# The first is what is aimed for as a ratio; it saves one row and commits.
ONE_ROW = sources.CASES[0]


def submit(effort: Effort) -> Iterator[Result]:
    """`edge.submit` on the caller's thread."""
    edge = GripEdge(settings=SETTINGS)
    works = {
        'submit("counters")': lambda: edge.submit("counters"),
        'submit("counter-{name}", name="blue")': lambda: edge.submit("counter-{name}", name="blue"),
    }
    # Whoever sends empties the inbox.
    turns = in_turns(works, effort, between=edge.health)
    for name, us in turns.of.items():
        yield result(name, us, "µs", target=at_most(1.5))
    edge.close()


def transactions(effort: Effort) -> Iterator[Result]:
    """What hooks add to a transaction of SQLAlchemy's."""
    section = ""
    for case in sources.CASES[: effort.pick(None, 2)]:
        is_part = case.name.startswith("  ")
        section = section if is_part else case.name
        name = f"{section},{case.name[1:]}" if is_part else section
        cost = sources.compare(case, effort.pick(20, 3))
        ratio = sum(cost.added) / sum(cost.plain) + 1
        yield result(
            f"{name}: added",
            cost.added,
            "µs",
            base="without hooks",
            base_values=cost.plain,
            ratio=ratio,
            target=_target(case),
        )


def one_row(effort: Effort) -> Iterator[Result]:
    """A save of one row, as a whole."""
    cost = sources.compare(ONE_ROW, effort.pick(40, 3))
    yield result(
        "save of one row, with the hooks",
        [plain + added for plain, added in zip(cost.plain, cost.added, strict=True)],
        "µs",
        base="without hooks",
        base_values=cost.plain,
        target=at_most_times(1.15),
    )


def _target(case: sources.Case) -> Target | None:
    return None if case.budget_us is None else at_most(case.budget_us)
