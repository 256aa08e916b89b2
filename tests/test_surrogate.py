"""Surrogate-Key: every key, or no caching."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.dialects import (
    AKAMAI,
    CACHE_GROUPS,
    CLOUDFLARE,
    CLOUDFRONT,
    FASTLY,
    SOUIN,
    VARNISH,
    Dialect,
)
from grip_edge_middleware.surrogate import (
    KeyHeader,
    Keys,
    build_keys,
    key_headers,
    parse_keys,
)
from grip_edge_middleware.types import Headers

KEYS = st.text(st.sampled_from("abc-%:"), min_size=1, max_size=9)


def value_of(
    keys: Iterable[str], any_key: Callable[[str], str | None], *, budget_bytes: int
) -> str | None:
    """The value of the only header."""
    built = build_keys(keys, any_key, [KeyHeader("Surrogate-Key", budget_bytes)])
    if built is None:
        return None
    [(_, value)] = built.headers
    assert built.names == value.split()
    return value


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
    value = value_of(keys, kind, budget_bytes=1_000_000)

    assert value is not None
    assert parse_keys([value]) == keys


# --- the budget -----------------------------------------------------------------------------------


def test_a_key_that_stands_twice_is_sent_once_where_it_stood_first() -> None:
    assert value_of(["b", "a", "b"], kind, budget_bytes=100) == "b a"


def test_no_kind_is_asked_for_when_the_keys_fit() -> None:
    def never(key: str) -> str | None:
        raise AssertionError(key)

    assert value_of(["aaa", "bbb"], never, budget_bytes=7) == "aaa bbb"


def test_one_byte_too_many_rolls_up() -> None:
    keys = ["lots", "lot-1234", "lot-1235"]

    assert value_of(keys, kind, budget_bytes=22) == "lots lot-1234 lot-1235"
    assert value_of(keys, kind, budget_bytes=21) == "lots lot-%any"


def test_the_most_numerous_kind_is_rolled_up_first() -> None:
    keys = ["a-1111", "b-1111", "b-2222", "b-3333", "a-2222"]

    assert value_of(keys, kind, budget_bytes=20) == "a-1111 b-%any a-2222"


def test_one_kind_after_the_other_is_rolled_up_until_the_rest_fits() -> None:
    keys = ["a-1111", "b-1111", "b-2222", "b-3333", "a-2222"]

    assert value_of(keys, kind, budget_bytes=19) == "a-%any b-%any"
    assert value_of(keys, kind, budget_bytes=12) is None


def test_keys_that_cannot_be_rolled_up_enough_are_refused() -> None:
    assert value_of(["lots", "stay", "lot-1", "lot-2"], kind, budget_bytes=10) is None
    assert value_of(["x" * 11], kind, budget_bytes=10) is None


@given(st.lists(KEYS, min_size=1), st.integers(1, 60))
def test_every_key_or_its_kind_is_there_or_nothing_is(keys: list[str], budget: int) -> None:
    value = value_of(keys, kind, budget_bytes=budget)

    if value is not None:
        sent = parse_keys([value])
        assert len(value) <= budget
        assert len(sent) == len(set(sent))
        assert all(key in sent or kind(key) in sent for key in keys)
        assert set(sent) <= {k for key in keys for k in (key, kind(key))}


@given(st.lists(KEYS, min_size=1))
def test_the_first_key_stays_first(keys: list[str]) -> None:
    value = value_of(keys, kind, budget_bytes=40)

    assert value is None or value.split(" ")[0] in (keys[0], kind(keys[0]))


# --- several headers ------------------------------------------------------------------------------


def build(keys: Iterable[str], *dialects: Dialect, budget: int = 100_000) -> Keys | None:
    return build_keys(keys, kind, key_headers(dialects, budget_bytes=budget))


@pytest.mark.parametrize(
    ("dialects", "headers"),
    [
        ([], [("Surrogate-Key", "%all A-1")]),
        ([VARNISH], [("Surrogate-Key", "%all A-1")]),
        ([FASTLY, VARNISH], [("Surrogate-Key", "%all A-1")]),
        ([SOUIN], [("Surrogate-Key", "%all, A-1")]),
        ([VARNISH, SOUIN], [("Surrogate-Key", "%all, A-1")]),
        ([CLOUDFLARE], [("Cache-Tag", "~25all,~41-1")]),
        ([CLOUDFLARE, CLOUDFRONT], [("Cache-Tag", "~25all,~41-1")]),
        ([AKAMAI], [("Edge-Cache-Tag", "~25all,~41-1")]),
        (
            [CACHE_GROUPS],
            [("Surrogate-Key", "%all A-1"), ("Cache-Groups", '"~25all", "~41-1"')],
        ),
        (
            [VARNISH, CLOUDFLARE],
            [("Surrogate-Key", "%all A-1"), ("Cache-Tag", "~25all,~41-1")],
        ),
    ],
)
def test_each_edge_is_told_in_its_own_header(dialects: list[Dialect], headers: Headers) -> None:
    keys = build(["%all", "A-1", "%all"], *dialects)

    assert keys == (["%all", "A-1"], headers)


@given(st.lists(KEYS, unique=True, max_size=40), st.sampled_from([CLOUDFLARE, SOUIN, AKAMAI]))
def test_keys_are_read_back_from_the_header_of_each_edge(keys: list[str], dialect: Dialect) -> None:
    [header] = key_headers([dialect], budget_bytes=100_000)
    value = header.build(keys)

    assert value is not None
    assert header.parse([value]) == keys


@given(st.lists(KEYS, max_size=60), st.integers(10, 300), st.sampled_from([8, 20, 1_000]))
def test_every_header_keeps_to_its_limits_and_names_all_keys_or_none_is_sent(
    keys: list[str], budget: int, most: int
) -> None:
    strict = replace(AKAMAI, max_keys=most)
    built = build(keys, VARNISH, strict, budget=budget)

    if built is None:
        return
    values = dict(built.headers)
    for key in keys:
        assert key in built.names or kind(key) in built.names
    assert values["Surrogate-Key"].split(" ") == (built.names or [""])
    assert values["Edge-Cache-Tag"] == ",".join(map(AKAMAI.spell, built.names))
    assert max(map(len, values.values())) <= budget
    assert len(built.names) <= most


def test_more_keys_than_an_edge_takes_are_named_together() -> None:
    keys = ["site", *(f"lot-{number}" for number in range(60)), "bid-1"]

    built = build(keys, VARNISH, CLOUDFRONT)

    assert built is not None
    assert built.names == ["site", "lot-%any", "bid-1"]


def test_keys_that_cannot_be_named_together_are_not_sent_at_all() -> None:
    # CloudFront would keep the first 50, and never find the page by the others.
    assert build((f"k{number}" for number in range(51)), VARNISH, CLOUDFRONT) is None
    assert build((f"k{number}" for number in range(51)), VARNISH) is not None


def test_a_key_that_is_too_long_for_fastly_is_not_sent() -> None:
    # It would ignore it, and all keys after it.
    assert build(["a", "k" * 1_025], FASTLY) is None
    assert build(["a", "k" * 1_024], FASTLY) is not None
    assert build(["a", "k" * 1_025], VARNISH) is not None


def test_what_an_edge_loses_is_not_sent_whatever_the_budget() -> None:
    keys = [f"{number:0100}" for number in range(200)]

    assert build(keys, VARNISH, budget=30_000) is not None
    assert build(keys, FASTLY, budget=30_000) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (FASTLY, SOUIN),  # at a space alone, and at a comma and a space
        (replace(FASTLY, header="cache-tag"), CLOUDFLARE),
        (replace(CLOUDFLARE, max_key_bytes=64), CLOUDFRONT),
    ],
)
def test_two_edges_cannot_read_one_header_each_in_its_own_way(one: Dialect, other: Dialect) -> None:
    with pytest.raises(ValueError, match=f"{one.title} and {other.title} read"):
        key_headers([one, other], budget_bytes=1_000)
