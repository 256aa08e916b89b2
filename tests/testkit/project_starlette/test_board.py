import asyncio

import board
import pytest

from grip_edge_middleware.testing import (
    assert_held,
    assert_hit,
    assert_miss,
    assert_not_held,
    assert_order,
    assert_published,
    assert_purged,
    assert_tagged,
    published,
    purged,
)


def test_a_goal_purges_and_pushes(recording_edge, client):
    client.post("/scores/7/goal")
    recording_edge.settle()

    assert_order(recording_edge, purged("score-7"), published("score-7", containing="data: 1"))
    assert_published(recording_edge, "score-7", containing='{"goals":1}')


def test_pages_are_tagged_and_held(recording_edge, client):
    # Behind Fastly the app says who is held: who has the latest.
    response = client.get("/scores/7")
    assert_not_held(response)
    response = client.get("/scores/7", headers={"If-None-Match": response.headers["ETag"]})
    assert_held(response, "response", channel="score-7")

    response = client.get("/table")
    assert_tagged(response, "table", "score-7")
    assert_not_held(response)


def test_a_change_is_confirmed(recording_edge, client):
    client.post("/scores/7/goal")
    recording_edge.settle()
    assert_purged(recording_edge, "score-7", times=1)

    recording_edge.settle(confirmations=True)
    assert_purged(recording_edge, "score-7", times=3)


def test_a_coroutine_settles_in_a_thread(recording_edge, client):
    async def score():
        client.post("/scores/7/goal")
        with pytest.raises(RuntimeError, match="await asyncio"):
            recording_edge.settle()
        await asyncio.to_thread(recording_edge.settle)

    asyncio.run(score())

    assert_published(recording_edge, "score-7")


def test_who_watches_sees_the_goal(embedded_edge):
    board.goals[7] = 0
    live = embedded_edge(board.app)
    with live.stream("/scores/7/events") as stream:
        assert_miss(stream)
        assert stream.next_event().data == "0"

        live.post("/scores/7/goal")
        assert stream.next_event().data == "1"

    assert_miss(live.get("/table"))
    assert_hit(live.get("/table"))
