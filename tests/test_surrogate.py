"""Surrogate-Key: every key, or no caching."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.surrogate import build_keys, parse_keys

KEYS = st.text(st.sampled_from("abc-%:"), min_size=1, max_size=9)


def kind(key: str) -> str | None:
    """The part before the hyphen names the kind; a key without one stands for itself."""
    name, hyphen, _ = key.partition("-")
    return f"{name}-%any" if hyphen else None


# --- (header lines, keys) -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["a"], ["a"]),
        (["a b"], ["a", "b"]),
        (["a,b"], ["a", "b"]),
        (["  a ,  b "], ["a", "b"]),
        (["a b", "c"], ["a", "b", "c"]),
        (["a a"], ["a", "a"]),
    ],
)
def test_lines_are_split_as_xkey_splits_them(lines: list[str], keys: list[str]) -> None:
    assert parse_keys(lines) == keys


@pytest.mark.parametrize("key", ["à", "Å", "\u0420", "\u0405"])
def test_an_apps_key_in_utf8_stays_whole(key: str) -> None:
    # As latin-1 text, its second byte (A0 or 85) is what Python counts as white space.
    line = key.encode().decode("latin-1")

    assert parse_keys([line]) == [line]


@given(st.lists(KEYS, unique=True))
def test_what_fits_is_read_back_unchanged(keys: list[str]) -> None:
    value = build_keys(keys, kind, budget_bytes=1_000_000)

    assert value is not None
    assert parse_keys([value]) == keys


# --- the budget -----------------------------------------------------------------------------------


def test_a_key_that_stands_twice_is_sent_once_where_it_stood_first() -> None:
    assert build_keys(["b", "a", "b"], kind, budget_bytes=100) == "b a"


def test_no_kind_is_asked_for_when_the_keys_fit() -> None:
    def never(key: str) -> str | None:
        raise AssertionError(key)

    assert build_keys(["aaa", "bbb"], never, budget_bytes=7) == "aaa bbb"


def test_one_byte_too_many_rolls_up() -> None:
    keys = ["lots", "lot-1234", "lot-1235"]

    assert build_keys(keys, kind, budget_bytes=22) == "lots lot-1234 lot-1235"
    assert build_keys(keys, kind, budget_bytes=21) == "lots lot-%any"


def test_the_most_numerous_kind_is_rolled_up_first() -> None:
    keys = ["a-1111", "b-1111", "b-2222", "b-3333", "a-2222"]

    assert build_keys(keys, kind, budget_bytes=20) == "a-1111 b-%any a-2222"


def test_one_kind_after_the_other_is_rolled_up_until_the_rest_fits() -> None:
    keys = ["a-1111", "b-1111", "b-2222", "b-3333", "a-2222"]

    assert build_keys(keys, kind, budget_bytes=19) == "a-%any b-%any"
    assert build_keys(keys, kind, budget_bytes=12) is None


def test_keys_that_cannot_be_rolled_up_enough_are_refused() -> None:
    assert build_keys(["lots", "stay", "lot-1", "lot-2"], kind, budget_bytes=10) is None
    assert build_keys(["x" * 11], kind, budget_bytes=10) is None


@given(st.lists(KEYS, min_size=1), st.integers(1, 60))
def test_every_key_or_its_kind_is_there_or_nothing_is(keys: list[str], budget: int) -> None:
    value = build_keys(keys, kind, budget_bytes=budget)

    if value is not None:
        sent = parse_keys([value])
        assert len(value) <= budget
        assert len(sent) == len(set(sent))
        assert all(key in sent or kind(key) in sent for key in keys)
        assert set(sent) <= {k for key in keys for k in (key, kind(key))}


@given(st.lists(KEYS, min_size=1))
def test_the_first_key_stays_first(keys: list[str]) -> None:
    value = build_keys(keys, kind, budget_bytes=40)

    assert value is None or value.split(" ")[0] in (keys[0], kind(keys[0]))
