"""What is asserted about what was sent, and what a failure says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from grip_edge_middleware.testing import (
    Published,
    Purged,
    Recovered,
    Sent,
    assert_not_published,
    assert_not_purged,
    assert_nothing_sent,
    assert_order,
    assert_published,
    assert_purged,
    assert_purged_before_published,
    published,
    purged,
)

STREAM = {"http-stream": {"content": "data: 1\n\n"}}


@dataclass
class Sheet:
    """A record that says what a test wrote on it."""

    sent: list[Sent] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)

    def pending(self) -> list[str]:
        return self.waiting


GOOD = Sheet(
    [
        Purged("varnish V", ("counter-a", "counter-%any")),
        Published("grip P", "counter-a", STREAM),
        Purged("varnish V", ("counter-b",)),
        Published("grip P", "counter-b", {"http-response": {"body-bin": "eyJhIjoxfQ=="}}),
    ]
)
WRONG_ORDER = Sheet([Published("grip P", "counter-a", STREAM), Purged("varnish V", ("counter-a",))])
REFUSED = Sheet([Purged("varnish V", ("counter-a",), "503"), Recovered("grip P", "no answer")])
TWICE = Sheet(
    [Purged("varnish V", ("a",)), Purged("varnish V", ("a",)), Purged("varnish W", ("a",))]
)
NOTHING = Sheet()


def test_what_holds_passes() -> None:
    assert_purged(GOOD, "counter-a", "counter-%any", "counter-b")
    assert_purged(GOOD, "counter-a", times=1)
    assert_not_purged(GOOD, "counter-c")
    assert_not_purged(REFUSED, "counter-a")
    assert_published(GOOD, "counter-a", containing="data: 1", times=1)
    assert_published(GOOD, "counter-b", containing='{"a":1}')
    assert_not_published(GOOD, "counter-c")
    assert_not_published(GOOD, "counter-a", containing="data: 2")
    assert_purged_before_published(GOOD, "counter-a")
    assert_purged_before_published(GOOD, "counter-%any", channel="counter-b")
    assert_order(GOOD, purged("counter-a"), published("counter-a"), published("counter-b", "a"))
    assert_order(WRONG_ORDER, published("counter-a"), purged("counter-a"))
    assert_nothing_sent(NOTHING)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: assert_purged(GOOD, "counter-a", "counter-d"),
            '"counter-d" was not purged (did you mean "counter-b"?)',
        ),
        (lambda: assert_purged(REFUSED, "counter-a"), '"counter-a" was not purged'),
        (
            lambda: assert_purged(TWICE, "a", times=1),
            '"a" was purged 2 times at varnish V, expected 1',
        ),
        (
            lambda: assert_purged(TWICE, "a", times=2),
            '"a" was purged once at varnish W, expected 2',
        ),
        (lambda: assert_not_purged(GOOD, "x", "counter-b"), '"counter-b" was purged'),
        (
            lambda: assert_published(GOOD, "counters-a"),
            'nothing was published on "counters-a" (did you mean "counter-a"?)',
        ),
        (
            lambda: assert_published(GOOD, "counter-a", containing="data: 2"),
            "nothing with 'data: 2' was published on \"counter-a\", but:",
        ),
        (
            lambda: assert_published(GOOD, "counter-a", times=2),
            'on "counter-a" it was published once at grip P, expected 2',
        ),
        (
            lambda: assert_not_published(GOOD, "counter-a", containing="1"),
            "something with '1' was published on \"counter-a\"",
        ),
        (lambda: assert_nothing_sent(GOOD), "expected that nothing is sent"),
        (lambda: assert_nothing_sent(Sheet(waiting=["a"])), "expected that nothing is sent"),
        (
            lambda: assert_order(GOOD, published("counter-b"), purged("counter-a")),
            'expected the purge of "counter-a" after the publish on "counter-b"',
        ),
        (
            lambda: assert_order(GOOD, purged("counter-b"), purged("counter-b")),
            'expected the purge of "counter-b" after the purge of "counter-b"',
        ),
        (
            lambda: assert_order(GOOD, published("counter-a", "data: 2")),
            "there was no publish on \"counter-a\" with 'data: 2'",
        ),
        (
            lambda: assert_purged_before_published(WRONG_ORDER, "counter-a"),
            '"counter-a" was published on before "counter-a" was purged',
        ),
        (
            lambda: assert_purged_before_published(GOOD, "counter-b", channel="counter-a"),
            '"counter-a" was published on before "counter-b" was purged',
        ),
    ],
)
def test_what_does_not_hold_is_said(check: Callable[[], None], message: str) -> None:
    with pytest.raises(AssertionError) as error:
        check()

    assert str(error.value).splitlines()[0] == message


def test_a_failure_lists_what_there_was_instead() -> None:
    sheet = Sheet([*GOOD.sent[:2], *REFUSED.sent], ["counter-c", "counter-d"], ["GET / failed"])

    with pytest.raises(AssertionError) as error:
        assert_published(sheet, "counter-a", containing="2")

    assert str(error.value).splitlines() == [
        "nothing with '2' was published on \"counter-a\", but:",
        "  'data: 1\\n\\n'",
        "sent so far, in order:",
        "  1. purge counter-a counter-%any  [varnish V]",
        "  2. publish counter-a: 'data: 1\\n\\n'  [grip P]",
        "  3. purge counter-a  [varnish V, refused: 503]",
        "  4. recover: all clients ask what they missed  [grip P, refused: no answer]",
        "still pending: counter-c, counter-d; settle() sends it",
        "the edge logged:",
        "  GET / failed",
    ]


def test_of_a_long_record_the_last_are_listed() -> None:
    sheet = Sheet([Purged("varnish V", (f"key-{number}",)) for number in range(100)])

    with pytest.raises(AssertionError) as error:
        assert_purged(sheet, "x")

    lines = str(error.value).splitlines()
    assert lines[2:4] == ["  ... 70 more before these", "  71. purge key-70  [varnish V]"]
    assert lines[-1] == "  100. purge key-99  [varnish V]"


def test_nothing_sent_is_said() -> None:
    with pytest.raises(AssertionError) as error:
        assert_published(NOTHING, "counter-a")

    assert str(error.value) == 'nothing was published on "counter-a"\nsent so far: nothing'
