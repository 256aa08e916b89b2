"""Every error of this package, in one tree.

GripEdgeError
├── SettingsError    the settings dict is wrong; carries every Mistake that was found
├── TopicError       a topic that the settings do not declare, or values that do not fill it
├── SignatureError   a request whose Grip-Sig was not made by one of the proxies
├── DeliveryError    a target refused or did not answer; retried, and never raised into the app
└── StoreError       the shared store does not answer; retried, and never raised into the app
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class GripEdgeError(Exception):
    """The root of the tree."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in the settings: where, what was found, what was expected, what to do."""

    path: str
    problem: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" + (f" ({self.hint})" if self.hint else "")


class SettingsError(GripEdgeError, ValueError):
    """The settings are wrong. `mistakes` lists all of them, not only the first."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        count = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__("\n".join([f"{count} in GRIP_EDGE", *(f"  {m}" for m in self.mistakes)]))


class TopicError(GripEdgeError, LookupError):
    """No declared topic has this name, or the values given do not fill its template."""


class SignatureError(GripEdgeError):
    """A `Grip-Sig` that no proxy made. `reason` repeats neither the token nor a key."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Grip-Sig refused: {reason}")


class DeliveryError(GripEdgeError):
    """A purge or a publish that was not acknowledged.

    `is_final` says that sending the same request again cannot succeed: the target understood it
    and refused its content.
    """

    def __init__(self, target: str, reason: str, *, is_final: bool = False) -> None:
        self.target = target
        self.reason = reason
        self.is_final = is_final
        super().__init__(f"{target}: {reason}")


class StoreError(GripEdgeError):
    """The store that processes share cannot be asked. `reason` repeats no password."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"store: {reason}")
