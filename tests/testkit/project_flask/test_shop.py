import threading

import pytest
from shop import app

from grip_edge_middleware.testing import (
    assert_cacheable,
    assert_held,
    assert_hit,
    assert_miss,
    assert_not_held,
    assert_not_published,
    assert_not_purged,
    assert_nothing_sent,
    assert_order,
    assert_published,
    assert_purged,
    assert_purged_before_published,
    assert_tagged,
    published,
    purged,
)


def test_a_save_purges_and_pushes(recording_edge, client):
    client.post("/counters/a/increment")
    recording_edge.settle()

    assert_purged(recording_edge, "counter-a")
    assert_published(recording_edge, "counter-a", containing='"value": 1')
    assert_purged_before_published(recording_edge, "counter-a")
    assert_not_purged(recording_edge, "counter-b")


def test_a_rollback_says_nothing(recording_edge, client):
    client.post("/counters/a/try")
    recording_edge.settle()

    assert_nothing_sent(recording_edge)


def test_a_page_is_tagged_and_held(recording_edge, client):
    response = client.get("/counters/a")

    assert_tagged(response, "counter-a")
    assert_held(response, "stream", channel="counter-a")
    assert_cacheable(response, ttl=600)


def test_a_page_that_is_not_there_is_not_held(recording_edge, client):
    assert_not_held(client.get("/counters/nothing"))


def test_only_the_last_value_is_pushed(recording_edge, client):
    for _ in range(5):
        client.post("/counters/a/increment")
    recording_edge.settle()

    assert_purged(recording_edge, "counter-a", times=1)
    assert_published(recording_edge, "counter-a", containing='"value": 5', times=1)
    assert_not_published(recording_edge, "counter-a", containing='"value": 4')


def test_both_counters_are_pushed_in_order(recording_edge, client):
    client.post("/counters/a/increment")
    recording_edge.settle()
    client.post("/counters/b/increment")
    recording_edge.settle()

    assert_order(
        recording_edge,
        purged("counter-a"),
        published("counter-a"),
        purged("counter-b"),
        published("counter-b"),
    )


def test_a_thread_of_the_app_may_save(recording_edge, client):
    saving = threading.Thread(target=client.post, args=["/counters/a/increment"])
    saving.start()
    saving.join()
    recording_edge.settle()

    assert_published(recording_edge, "counter-a", containing='"value": 1')


def test_while_the_cache_is_down_it_is_waited_for(recording_edge, client):
    recording_edge.refuse("varnish", status=503)
    client.post("/counters/a/increment")
    recording_edge.advance(9)
    assert_not_published(recording_edge, "counter-a")
    assert_cacheable(client.get("/counters/a"), ttl=5)

    recording_edge.advance(2)  # purge_deadline is 10 seconds
    assert_published(recording_edge, "counter-a")
    assert_not_purged(recording_edge, "counter-a")

    recording_edge.accept("varnish")
    recording_edge.settle()
    assert_purged(recording_edge, "counter-a")


def test_what_cannot_be_delivered_is_said(recording_edge, client):
    recording_edge.refuse("grip", status=403)
    client.post("/counters/a/increment")

    with pytest.raises(AssertionError, match="still pending: counter-a"):
        recording_edge.settle()


def test_who_watches_sees_the_change(embedded_edge, client):
    live = embedded_edge(app)
    with live.stream("/counters/a") as first, live.stream("/counters/a") as second:
        assert_miss(first)
        assert_hit(second)
        assert first.next_event().data == '{"value": 0}'

        live.post("/counters/a/increment")
        assert first.next_event(timeout=5).data == '{"value": 1}'

    live.settle()
    assert_purged(live, "counter-a")
    with live.stream("/counters/a") as late:
        assert_miss(late)


def test_nothing_of_the_test_before_is_left(recording_edge, client):
    recording_edge.advance(10)

    assert_nothing_sent(recording_edge)
