"""With what a command ends."""

from __future__ import annotations

OK = 0
FOUND_WRONG = 1
"""What was asked for was done, or looked at, and something is wrong: a target that refuses, say."""
WRONG_USE = 2
"""What the caller has to mend first, as argparse does: a wrong name, wrong settings."""

INTERRUPTED = 130
"""Ctrl-C, as shells have it: 128 and the signal's number."""


class WrongUse(Exception):  # noqa: N818 - never leaves this folder
    """What was asked for cannot be done; says why."""
