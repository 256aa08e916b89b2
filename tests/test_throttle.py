"""The arithmetic of when, without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.throttle import (
    LAST_REFUSED_S,
    LAST_RETRY_S,
    LONGEST_RETRY_AFTER_S,
    due_at,
    retry_in,
)

TIMES = st.floats(0, 1e9)


@pytest.mark.parametrize(
    ("now", "window_end", "due"),
    [
        (100.0, None, 100.0),  # the first change of a topic
        (100.0, 100.7, 100.7),  # within the window: at its end
        (100.0, 100.0, 100.0),
        (100.0, 99.0, 100.0),  # after it: at once
    ],
)
def test_the_first_change_is_due_at_once_and_a_later_one_at_the_windows_end(
    now: float, window_end: float | None, due: float
) -> None:
    assert due_at(now, window_end) == due


@given(TIMES, st.one_of(st.none(), TIMES))
def test_nothing_is_due_in_the_past(now: float, window_end: float | None) -> None:
    assert due_at(now, window_end) >= now


@given(st.lists(st.floats(0, 0.99), min_size=1), TIMES)
def test_steady_changes_never_put_off_the_trailing_one(steps: list[float], start: float) -> None:
    window_end = start + 1.0

    assert {due_at(start + step, window_end) for step in steps} == {window_end}


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, LAST_RETRY_S), (10**9, LAST_RETRY_S)],
)
def test_a_target_that_is_down_is_asked_every_second_in_the_end(
    failures: int, seconds: float
) -> None:
    assert retry_in(failures, asked_s=None, is_refusal=False) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(1, 0.1), (6, 3.2), (9, 25.6), (10, LAST_REFUSED_S), (10**9, LAST_REFUSED_S)],
)
def test_a_target_that_refuses_is_asked_more_rarely(failures: int, seconds: float) -> None:
    assert retry_in(failures, asked_s=None, is_refusal=True) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("asked_s", "seconds"), [(0.0, 0.0), (45.0, 45.0), (1e9, LONGEST_RETRY_AFTER_S)]
)
def test_a_targets_own_wish_is_honoured_within_reason(asked_s: float, seconds: float) -> None:
    assert retry_in(7, asked_s=asked_s, is_refusal=True, jitter=1.5) == seconds


def test_jitter_stretches_the_wait() -> None:
    assert retry_in(2, asked_s=None, is_refusal=False, jitter=1.5) == pytest.approx(0.3)
