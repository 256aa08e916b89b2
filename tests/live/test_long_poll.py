"""Long-polls from a cache, on real Pushpin and Varnish: answered at once, or held until news."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from board import HOLD_TIMEOUT_S, Board, Page, Wired, board, recovers, showing, value_in
from checkpoint import DEADLINE_S
from clients import StreamClient

pytestmark = [pytest.mark.live, pytest.mark.both_edges]

CLIENTS = 100
CHANGES = 50
PAUSE_S = 0.2


@pytest.fixture
def served(wired: Wired) -> Iterator[Board]:
    with board(wired) as served:
        yield served


def test_who_has_nothing_or_something_old_is_answered_at_once(served: Board) -> None:
    page = served.page("poll", "old")

    first = page.poll()
    page.change(1)
    late = page.poll(first.headers["ETag"])

    assert (first.status, first.body) == (200, showing(0))
    assert (late.status, late.body) == (200, showing(1))
    assert late.headers["ETag"] != first.headers["ETag"]
    assert "Grip-Hold" not in late.headers


def test_who_has_the_latest_is_held_until_there_is_news(served: Board) -> None:
    page = served.page("poll", "latest")
    with ThreadPoolExecutor(10) as pool:
        tag = page.poll().headers["ETag"]
        held = [pool.submit(page.poll, tag) for _ in range(10)]
        page.wait_until_passed_on(1 + 10)
        assert not any(answer.done() for answer in held)
        page.change(1)
        answers = [answer.result(DEADLINE_S) for answer in held]
        again = page.poll()

    assert {(answer.status, answer.body) for answer in answers} == {(200, showing(1))}
    assert {answer.headers["ETag"] for answer in answers} == {again.headers["ETag"]}
    assert served.served.count(page.path) == 2


@pytest.mark.real_edge  # takes long
def test_without_news_it_is_a_304_when_the_time_is_up(served: Board) -> None:
    page = served.page("poll", "quiet")

    tag = page.poll().headers["ETag"]
    started = time.monotonic()
    answer = page.poll(tag)

    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["ETag"] == tag
    assert time.monotonic() - started >= HOLD_TIMEOUT_S
    assert served.served.count(page.path) == 1


@pytest.mark.parametrize("kind", ["poll", "barepoll"])
def test_who_was_held_with_an_old_page_is_healed_by_the_marker(served: Board, kind: str) -> None:
    """As if the page had left the cache just before the purge and arrived after the publish."""
    page = served.page(kind, "late")
    with ThreadPoolExecutor(2) as pool:
        tag = page.poll().headers["ETag"]
        early = pool.submit(page.poll, tag)
        # A proxy itself asks again after a second for the first who subscribes to a channel.
        page.wait_until_passed_on(3)
        served.purges.swallows = True
        page.change(1)
        assert early.result(DEADLINE_S).body == showing(1)
        late = pool.submit(page.poll, tag)
        page.wait_until_passed_on(4)
        served.purges.swallows = False
        started = time.monotonic()
        answer = late.result(DEADLINE_S)

    print(f"\nold page held, {kind}: {answer.status} after {time.monotonic() - started:.2f} s")
    assert (answer.status, answer.body) == ((200, showing(1)) if recovers(kind) else (304, b""))


def test_the_markers_leave_who_is_up_to_date_alone(served: Board) -> None:
    page = served.page("poll", "marked")
    with ThreadPoolExecutor(1) as pool:
        page.change(1)
        held = pool.submit(page.poll, page.poll().headers["ETag"])
        page.wait_until_passed_on(2)
        page.wait_until_confirmed()
        assert not held.done()
        page.change(2)
        answer = held.result(DEADLINE_S)

    assert (answer.status, answer.body) == (200, showing(2))


@pytest.mark.lab
@pytest.mark.real_edge  # a crowd
def test_100_clients_loop_through_50_changes(served: Board) -> None:
    """With random pauses between their polls: each ends on the last version."""
    page = served.page("poll", "loop")
    told: list[list[int]] = [[] for _ in range(CLIENTS)]

    async def scenario() -> None:
        clients = [poll_until(CHANGES, page, number, told[number]) for number in range(CLIENTS)]
        changing = asyncio.to_thread(change_often, page)
        await asyncio.wait_for(asyncio.gather(changing, *clients), 60)

    asyncio.run(scenario())
    requests = served.served.count(page.path)

    answers = sum(map(len, told))
    print(
        f"\nlong-poll: {CLIENTS} clients, {CHANGES} changes:"
        f" {answers} answers, {requests} requests to the app"
    )
    for values in told:
        assert values == sorted(values)
        assert values[-1] == CHANGES
    assert requests <= 2 * (CHANGES + 1)


async def poll_until(value: int, page: Page, seed: int, told: list[int]) -> None:
    """Poll again and again, and note what is answered, until it is the value."""
    pauses = random.Random(seed)
    tag = ""
    while told[-1:] != [value]:
        async with StreamClient(page.url, {"If-None-Match": tag}) as client:
            await client.end(DEADLINE_S)
        if client.status == 200:
            tag = client.headers["ETag"]
            told.append(value_in(client.body))
        await asyncio.sleep(pauses.uniform(0, PAUSE_S))


def change_often(page: Page) -> None:
    pauses = random.Random(CHANGES)
    for value in range(1, CHANGES + 1):
        page.change(value)
        time.sleep(pauses.uniform(0, PAUSE_S))
