"""When a topic may be sent, and when a refusal is tried again.

Pure arithmetic: all times are seconds of one monotonic clock, which the caller passes in.
"""

from __future__ import annotations

# Quick enough that a target which returns is served at once, and rare enough that a target which is
# down costs nothing.
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 1.0
# A refusal (a wrong token, say) is not mended by asking again soon.
LAST_REFUSED_S = 30.0
# What a target asks for is honoured up to here; it may be a mistake.
LONGEST_RETRY_AFTER_S = 600.0


def due_at(now: float, window_end: float | None) -> float:
    """Return when a change of now is sent: at once, or when the open window ends."""
    return now if window_end is None else max(now, window_end)


def retry_in(
    failures: int, *, asked_s: float | None, is_refusal: bool, jitter: float = 1.0
) -> float:
    """Return the seconds until the next try after that many failures in a row.

    `asked_s` is the target's own wish (Retry-After). `jitter` is a factor of about 1 that keeps
    many processes from asking in step.
    """
    if asked_s is not None:
        return min(asked_s, LONGEST_RETRY_AFTER_S)
    longest = LAST_REFUSED_S if is_refusal else LAST_RETRY_S
    return min(longest, FIRST_RETRY_S * 2.0 ** min(failures - 1, 30)) * jitter
