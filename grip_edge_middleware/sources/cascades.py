"""What the database itself writes along with a row: ON DELETE, ON UPDATE.

Pure: what the foreign keys say. A database that is told not to enforce them does less.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from grip_edge_middleware.sql import Write
from grip_edge_middleware.types import Operation

_ON_DELETE: Mapping[str, Operation] = {
    "CASCADE": "delete",
    "SET NULL": "update",
    "SET DEFAULT": "update",
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key of a table, as its rules go."""

    child: str
    on_delete: str
    on_update: str

    def follows(self, operations: Collection[Operation]) -> Iterator[Operation]:
        """Yield what happens to rows of the child when this happens to those of the parent."""
        on_delete = _ON_DELETE.get(self.on_delete.upper())
        if on_delete is not None and "delete" in operations:
            yield on_delete
        if self.on_update.upper() == "CASCADE" and "update" in operations:
            yield "update"


def along_with(
    references: Mapping[str, Iterable[Reference]],
    writes: Collection[Write],
    *,
    but: Collection[str] = (),
) -> Iterator[Write]:
    """Yield what follows from the writes, given the foreign keys to each table.

    Not what is written to the tables `but`, nor what follows from that.
    """
    queue, seen = list(writes), {(w.table, o) for w in writes for o in w.operations}
    while queue:
        written = queue.pop()
        for reference in references.get(written.table, ()):
            for operation in reference.follows(written.operations):
                if reference.child not in but and (reference.child, operation) not in seen:
                    seen.add((reference.child, operation))
                    queue.append(Write(reference.child, frozenset({operation})))
                    yield queue[-1]
