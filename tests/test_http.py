"""Our own HTTP messages: what they show in a log, and how long a target asks us to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.http import Request, parse_retry_after

# Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's examples.
THEN = 784_111_777.0


# --- (Retry-After, seconds) -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("9" * 400, 999_999_999.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 10.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 10.0),
        ("Sun Nov  6 08:49:37 1994", 10.0),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("٣", None),
        ("soon", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
    ],
)
def test_retry_after_is_seconds_from_now(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, now=THEN - 10) == seconds


def test_no_retry_after_asks_for_nothing() -> None:
    assert parse_retry_after(None, now=THEN) is None


@given(st.one_of(st.text(), st.from_regex(r"\w{3}, \d+ \w{3} \d+ \d+:\d+:\d+ [-+]?\w+")))
def test_nonsense_in_retry_after_is_never_an_error(value: str) -> None:
    seconds = parse_retry_after(value, now=THEN)

    assert seconds is None or seconds >= 0


def test_a_request_shows_neither_its_headers_nor_its_body() -> None:
    request = Request("POST", "http://cdn/purge", {"Fastly-Key": "hunter2"}, b"hunter3")

    assert repr(request) == "Request(method='POST', url='http://cdn/purge')"
