"""What time it is for an edge."""

from __future__ import annotations

import time

from grip_edge_middleware.clock import EdgeClock, ManualClock

A_DAY_S = 86_400


def test_an_edge_has_the_machines_time_or_a_tests() -> None:
    clock = EdgeClock()
    before = time.monotonic()
    assert before <= clock() <= time.monotonic()
    clock.manual = ManualClock()
    clock.manual.advance_to(clock() + A_DAY_S)

    assert clock() >= before + A_DAY_S


def test_a_manual_clock_never_goes_back() -> None:
    clock = ManualClock()
    now = clock()
    clock.advance_to(now - 1)

    assert clock() == now


def test_nothing_is_waited_for_on_a_manual_clock() -> None:
    clock = EdgeClock()
    clock.manual = ManualClock()
    now = clock()
    clock.pause(A_DAY_S)  # the test's time limit would end it

    assert clock() == now
