"""The races between a refill of the cache and its purge, each made to happen on real Varnish.

A request is held at one place of its way while its page changes and is purged. Each has its
control: the same without what closes it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from board import CONFIRM_AFTER_S, Board, Page, Wired, board
from checkpoint import Checkpoint

pytestmark = [pytest.mark.live, pytest.mark.both_edges]

ROUNDS = 20


def stale_pages(
    wired: Wired,
    place: Callable[[Board], Checkpoint],
    *,
    gate: bool,
    confirm_after_s: float = CONFIRM_AFTER_S,
) -> int:
    """Count the pages that stay old in the cache after they changed while a request was held."""
    with board(wired, gate=gate, confirm_after_s=confirm_after_s) as served:
        pages = [served.page("bare", number) for number in range(ROUNDS)]
        for page in pages:
            change_in_flight(page, place(served))
        if confirm_after_s:
            for page in pages:
                page.wait_until_confirmed()
        return sum(page.shown() != 1 for page in pages)


def change_in_flight(page: Page, place: Checkpoint) -> None:
    with ThreadPoolExecutor(1) as pool, place.holding(page.path) as held:
        pool.submit(page.fetch)
        held.wait()
        page.change(1)


def before_read(served: Board) -> Checkpoint:
    return served.before_read


def after_read(served: Board) -> Checkpoint:
    return served.after_read


def in_transit(served: Board) -> Checkpoint:
    return served.in_transit


def test_a_change_before_the_app_reads(wired: Wired) -> None:
    """The gate cannot know that nothing old was read: it is for nothing here, and does no harm."""
    without = stale_pages(wired, before_read, gate=False, confirm_after_s=0)
    with_gate = stale_pages(wired, before_read, gate=True, confirm_after_s=0)

    print(f"\norigin before its read: {with_gate} of {ROUNDS} stale, {without} without the gate")
    assert (without, with_gate) == (0, 0)


def test_a_change_after_the_app_read(wired: Wired) -> None:
    without = stale_pages(wired, after_read, gate=False, confirm_after_s=0)
    with_gate = stale_pages(wired, after_read, gate=True, confirm_after_s=0)

    print(f"\norigin after its read: {with_gate} of {ROUNDS} stale, {without} without the gate")
    assert (without, with_gate) == (ROUNDS, 0)


def test_a_change_while_the_answer_is_in_transit_to_the_cache(wired: Wired) -> None:
    without = stale_pages(wired, in_transit, gate=True, confirm_after_s=0)
    confirmed = stale_pages(wired, in_transit, gate=True)

    print(f"\nin transit to the cache: {confirmed} of {ROUNDS} stale, {without} unconfirmed")
    assert (without, confirmed) == (ROUNDS, 0)


def test_a_second_change_before_the_first_purge_is_acknowledged(wired: Wired) -> None:
    """A purge stands for what was changed when it left, not for what changed since."""
    with board(wired, confirm_after_s=0) as served:
        page = served.page("bare", "twice")
        with served.purges.answers.holding(page.topic) as held:
            page.commit(1)
            page.submit()
            held.wait()
            between = page.shown()
            page.commit(2)
            control = page.shown()
            page.submit()
        page.flush()
        after = page.shown()

    print(f"\nbetween two purges the cache shows {between}, then {control}, at last {after}")
    assert (between, control, after) == (1, 1, 2)
