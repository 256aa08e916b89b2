"""What the development cache believes, keeps and shows: `tests/live/` has more."""

from __future__ import annotations

import pytest

from grip_edge_middleware.devedge.exchange import Answer, Asked
from grip_edge_middleware.devedge.rules import (
    Lifetime,
    key_of,
    lifetime,
    shown,
    trusted,
    unchanged,
    varies_on,
)

SIGNED = ("grip-sig", "token")
NEXT = "/.grip-edge/next/3"


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({"surrogate-control": "max-age=60, stale-if-error=9"}, Lifetime(60, 9)),
        ({"surrogate-control": "max-age=60", "cache-control": "max-age=0"}, Lifetime(60, 0)),
        ({"surrogate-control": "max-age=60", "cache-control": "no-cache"}, Lifetime(60, 0)),
        ({"cache-control": "s-maxage=60, max-age=5"}, Lifetime(60, 0)),
        ({"cache-control": "max-age=5, stale-if-error=9"}, Lifetime(5, 9)),
        ({}, None),
        ({"surrogate-control": "max-age=0", "cache-control": "max-age=60"}, None),
        ({"surrogate-control": "no-store", "cache-control": "max-age=60"}, None),
        ({"surrogate-control": "max-age=60", "cache-control": "private"}, None),
        ({"surrogate-control": "max-age=60", "set-cookie": "a=1"}, None),
        ({"surrogate-control": "max-age=60", "vary": "*"}, None),
        ({"cache-control": "no-cache, max-age=60"}, None),
    ],
    ids=str,
)
def test_lifetime_is_what_the_headers_say(headers: dict[str, str], kept: Lifetime | None) -> None:
    assert lifetime(Answer(200, list(headers.items()))) == kept


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_failure_is_never_kept(status: int) -> None:
    assert lifetime(Answer(status, [("surrogate-control", "max-age=60")])) is None


def test_a_stranger_says_nothing_of_grip() -> None:
    asked = Asked("GET", "/", [("grip-last", "secret; last-id=1"), ("grip-feature", "status")])

    assert trusted(asked).headers == []


def test_what_links_are_built_from_is_not_a_clients_to_say() -> None:
    asked = Asked("GET", "/", [SIGNED, ("x-forwarded-host", "evil"), ("x-edge-stale", "1")])

    assert trusted(asked).headers == [SIGNED]


def test_the_lines_of_a_grip_last_become_one() -> None:
    lines = [("grip-last", "a; last-id=1"), ("grip-last", "b; last-id=2")]

    assert trusted(Asked("GET", NEXT, [SIGNED, *lines])).says("grip-last") == (
        "a; last-id=1, b; last-id=2"
    )


def test_a_next_link_has_a_copy_for_each_grip_last_and_a_page_has_one() -> None:
    def keys(target: str) -> set[str]:
        lasts = ("a; last-id=1", "a; last-id=2")
        return {key_of(Asked("GET", target, [SIGNED, ("grip-last", last)])) for last in lasts}

    assert len(keys(NEXT)) == 2
    assert len(keys("/page")) == 1


def test_a_token_is_compared_only_by_whether_there_is_one() -> None:
    answer = Answer(200, [("vary", "Grip-Sig, Accept")])

    assert varies_on(Asked("GET", "/", [SIGNED]), answer) == (("accept", ""), ("grip-sig", "yes"))


HELD = [("grip-hold", "response"), ("grip-channel", "c"), ("etag", '"new"')]


@pytest.mark.parametrize(
    ("has", "is_held"),
    [
        (None, False),
        ('"old"', False),
        ('"new"', True),
        ('W/"new"', True),
        ('"old", "new"', True),
        ("*", False),
    ],
)
def test_only_who_has_the_copy_is_held(has: str | None, is_held: bool) -> None:
    asked = Asked("GET", "/", [SIGNED, *([("if-none-match", has)] if has else [])])

    answer = shown(asked, Answer(200, HELD, b"x"), "HIT", 1)

    assert (answer.status, answer.says("grip-hold")) == (
        (304, "response") if is_held else (200, "")
    )


def test_a_direct_client_sees_nothing_of_the_edge() -> None:
    own = [("cache-control", "s-maxage=60, max-age=5, stale-if-error=9, public"), ("age", "7")]
    answer = Answer(200, [*HELD, *own, ("surrogate-key", "c"), ("surrogate-control", "max-age=9")])

    headers = shown(Asked("GET", "/"), answer, "HIT", 3).headers

    assert headers == [
        ("etag", '"new"'),
        ("x-cache", "HIT"),
        ("x-cache-hits", "3"),
        ("cache-control", "max-age=5, public"),
    ]


@pytest.mark.parametrize("status", [500, 503])
def test_a_next_link_that_fails_says_that_nothing_is_new(status: int) -> None:
    asked = Asked("GET", NEXT, [SIGNED, ("grip-last", "a; last-id=7, b; last-id=8.c")])

    answer = shown(asked, Answer(status), "MISS", 0)

    assert answer == unchanged(asked)
    assert (answer.status, answer.says("grip-hold")) == (200, "stream")
    assert answer.says("grip-channel") == "a; prev-id=7, b; prev-id=8.c"
