"""`benchmarks/results.json`: what was found, when, and on what.

Who measures one benchmark anew leaves the others as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, versions
from benchmarks.results import Curve, Found, Result, build_found, parse_found

HERE = Path(__file__).resolve().parent
FILE = HERE / "results.json"


@dataclass(frozen=True, slots=True)
class Record:
    """All that was found, by benchmark."""

    found: dict[str, list[Found]] = field(default_factory=dict)
    measured_on: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Record:
        """Read a file; nothing was found if there is none."""
        if not file.exists():
            return cls()
        said = json.loads(file.read_text())
        found: dict[str, list[Found]] = {}
        for line in (*said.pop("results"), *said.pop("curves")):
            found.setdefault(line.pop("benchmark"), []).append(parse_found(line))
        return cls(found, said)

    def with_found(self, found: Mapping[str, list[Found]]) -> Record:
        """Return the record with these benchmarks measured now, on this machine."""
        now = datetime.now(UTC).isoformat(timespec="minutes")
        measured_on = {"date": now, "machine": machine(), "versions": versions()}
        return Record({**self.found, **found}, measured_on)

    def write(self, file: Path) -> None:
        """Write it down."""
        file.parent.mkdir(parents=True, exist_ok=True)
        said = {
            **self.measured_on,
            "results": list(self._lines(Result)),
            "curves": list(self._lines(Curve)),
        }
        file.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")

    def of(self, benchmark: str) -> list[Result]:
        """Return the figures of a benchmark."""
        return [f for f in self.found.get(benchmark, ()) if isinstance(f, Result)]

    def curves(self, benchmark: str) -> list[Curve]:
        """Return its curves."""
        return [f for f in self.found.get(benchmark, ()) if isinstance(f, Curve)]

    def _lines(self, kind: type[Found]) -> Iterable[dict[str, Any]]:
        for benchmark, all_found in self.found.items():
            for found in all_found:
                if isinstance(found, kind):
                    yield {"benchmark": benchmark, **build_found(found)}
