"""What `grip-edge check` says: one line for each thing that it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from grip_edge_middleware.cli.screen import Screen
from grip_edge_middleware.cli.status import FOUND_WRONG, OK

Level = Literal["ok", "warning", "wrong"]

_STYLES: dict[Level, str] = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: how it is, with what, and what to do about it."""

    level: Level
    about: str
    says: str
    do: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether something does not work."""
        return self.level == "wrong"


def ok(about: str, says: str) -> Finding:
    """Return that something is as it should be."""
    return Finding("ok", about, says)


def warning(about: str, says: str, do: str) -> Finding:
    """Return that something will bite some day."""
    return Finding("warning", about, says, do)


def wrong(about: str, says: str, do: str) -> Finding:
    """Return that something does not work."""
    return Finding("wrong", about, says, do)


def show(screen: Screen, findings: Sequence[Finding]) -> int:
    """Print them; return the status with which the command ends."""
    width = max((len(finding.about) for finding in findings), default=0)
    for finding in findings:
        screen.line(
            (f"{finding.level:<8}", _STYLES[finding.level]),
            (f"{finding.about:<{width}}  ", "bold"),
            finding.says,
            (f" ({finding.do})" if finding.do else "", "cyan"),
        )
    is_well = not any(finding.is_wrong for finding in findings)
    screen.json({"ok": is_well, "findings": [asdict(finding) for finding in findings]})
    return OK if is_well else FOUND_WRONG
