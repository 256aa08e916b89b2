"""What an item means to who is held."""

from __future__ import annotations

import math

import pytest

from grip_edge_middleware.devedge.holds import ID_CACHE_S, LINGER_S, Channels, Held, Verdict
from grip_edge_middleware.devedge.instruct import Channel, Instruct, Item

NOW = 100.0
STREAM = {"http-stream": {"content": "x"}}


def item(id_: str | None = "2", prev_id: str | None = "1", **more: object) -> Item:
    return Item("c", STREAM, id_, prev_id, **more)  # type: ignore[arg-type]


def held(prev_id: str | None = "1", *filters: str) -> Held:
    return Held.begin("http-stream", [Channel("c", prev_id, filters), Channel("d", "9")], NOW)


@pytest.mark.parametrize(
    ("has", "comes", "verdict"),
    [
        ("1", item(), Verdict.DELIVER),
        ("0", item(), Verdict.ASK),
        ("1", item(prev_id=None), Verdict.ASK),
        (None, item(), Verdict.DELIVER),
        ("1", Item("other", STREAM), Verdict.SKIP),
        ("1", Item("c", {"http-response": {}}, "2", "1"), Verdict.SKIP),
        ("1", Item("c", {"http-stream": {"action": "hint"}}, "2", "1"), Verdict.ASK),
    ],
)
def test_verdicts(has: str | None, comes: Item, verdict: Verdict) -> None:
    assert held(has).take(comes, NOW) is verdict


def test_who_got_an_item_has_it() -> None:
    client = held()
    client.take(item("2", "1"), NOW)

    assert client.grip_last == [("grip-last", "c; last-id=2"), ("grip-last", "d; last-id=9")]
    assert client.take(item("3", "2"), NOW) is Verdict.DELIVER


def test_who_missed_an_item_still_has_the_old_one() -> None:
    client = held("0")
    client.take(item("2", "1"), NOW)

    assert client.grip_last[0] == ("grip-last", "c; last-id=0")


def test_an_item_without_an_id_loses_track() -> None:
    client = held()
    client.take(item(None), NOW)

    assert client.take(item("9", "8"), NOW) is Verdict.DELIVER


def test_a_marker_is_silent_for_who_is_up_to_date_and_has_the_others_ask() -> None:
    marker = item("1.c", "1", meta={"require_sub": "%nobody"})
    current, behind = held("1", "require-sub"), held("0", "require-sub")

    assert current.take(marker, NOW) is Verdict.SKIP
    assert current.have["c"] == "1.c"
    assert behind.take(marker, NOW) is Verdict.ASK
    assert held("1").take(marker, NOW) is Verdict.DELIVER  # without the filter


def test_the_next_link_is_due_after_the_quietest_channel() -> None:
    client = held()
    linked = Instruct(next_link="/next", next_timeout_s=10)
    client.take(item(), NOW + 5)

    assert client.next_link_due(linked) == NOW + 10
    assert client.next_link_due(Instruct()) == math.inf


def test_a_repeated_id_reaches_nobody_for_a_minute() -> None:
    channels: Channels[str] = Channels()
    channels.join("ann", ["c"], NOW)

    assert channels.admit(item(), NOW) == ["ann"]
    assert channels.admit(item(), NOW + ID_CACHE_S - 1) == []
    assert channels.admit(item(), NOW + ID_CACHE_S) == ["ann"]


def test_items_reach_who_is_subscribed() -> None:
    channels: Channels[str] = Channels()
    channels.join("ann", ["c", "d"], NOW)
    channels.join("bob", ["c"], NOW)
    channels.leave("ann", ["c", "d"], NOW)

    assert channels.admit(item(), NOW) == ["bob"]
    assert channels.sessions == channels.sessions_of("c") == ["bob"]


def test_the_first_subscriber_is_known() -> None:
    channels: Channels[str] = Channels()

    assert channels.join("ann", ["c", "d"], NOW) == ["c", "d"]
    assert channels.join("bob", ["c", "e"], NOW) == ["e"]


def test_a_long_poll_lingers_between_two_polls() -> None:
    channels: Channels[str] = Channels()
    channels.join("ann", ["c"], NOW)
    channels.leave("ann", ["c"], NOW, lingers=True)

    assert channels.join("ann", ["c"], NOW + LINGER_S - 1) == []
    channels.leave("ann", ["c"], NOW, lingers=True)
    assert channels.join("ann", ["c"], NOW + LINGER_S) == ["c"]


def test_a_new_hold_that_is_behind_is_told_once() -> None:
    channels: Channels[str] = Channels()
    channels.join("ann", ["c"], NOW)
    channels.admit(item("2"), NOW)

    assert not channels.is_behind([Channel("c", "2")])
    assert not channels.is_behind([Channel("c")])
    assert channels.is_behind([Channel("c", "1")])
    assert not channels.is_behind([Channel("c", "1")])  # Pushpin forgets it then


def test_items_that_keep_their_own_order_are_not_remembered() -> None:
    channels: Channels[str] = Channels()
    channels.join("ann", ["c"], NOW)
    channels.admit(item("2", is_in_order=True), NOW)

    assert not channels.is_behind([Channel("c", "1")])
