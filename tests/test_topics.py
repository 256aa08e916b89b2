"""Topics: the one name that joins a URL's parameters to a model's attributes."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from grip_edge_middleware.topics import (
    LITERAL,
    MAX_NAME,
    SEPARATORS,
    SITE_KEY,
    Topic,
    TopicTemplate,
    escape,
    escape_key,
    overlap,
    shorten,
    text,
)

# Lone surrogates are left out where a value must come back: no URL can carry them.
VALUES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
ANY_TEXT = st.text(st.characters(), min_size=1)

literals = st.text(st.sampled_from(sorted(LITERAL)), max_size=6)
separated = st.tuples(literals, st.sampled_from(sorted(SEPARATORS)), literals).map("".join)


@st.composite
def templates(draw: st.DrawFn) -> TopicTemplate:
    """Any template with up to three parameters."""
    names = [f"p{i}" for i in range(draw(st.integers(0, 3)))]
    pieces = [draw(literals)]
    for position, name in enumerate(names):
        is_last = position == len(names) - 1
        pieces += [f"{{{name}}}", draw(literals if is_last else separated)]
    whole = "".join(pieces)
    assume(whole)
    return TopicTemplate.parse(whole)


@st.composite
def similar_templates(draw: st.DrawFn) -> TopicTemplate:
    """Templates of few characters, so that two of them often share a name."""
    few = st.text(st.sampled_from("ab-:."), max_size=2)
    names = [f"p{i}" for i in range(draw(st.integers(0, 2)))]
    pieces = [draw(few)]
    for position, name in enumerate(names):
        is_last = position == len(names) - 1
        separator = "" if is_last else draw(st.sampled_from("-:."))
        pieces += [f"{{{name}}}", separator + draw(few)]
    whole = "".join(pieces)
    assume(whole)
    return TopicTemplate.parse(whole)


def fill(template: str, **values: object) -> str:
    return TopicTemplate.parse(template).fill(values).name


# --- names: (template, values, name) ------------------------------------------------------------

NAMES: list[tuple[str, Mapping[str, str], str]] = [
    ("counters", {}, "counters"),
    ("counter-{name}", {"name": "blue"}, "counter-blue"),
    ("counter-{name}", {"name": "a b"}, "counter-a%20b"),
    ("counter-{name}", {"name": "a,b"}, "counter-a%2Cb"),
    ("counter-{name}", {"name": "a;b"}, "counter-a%3Bb"),
    ("counter-{name}", {"name": "a\r\nb"}, "counter-a%0D%0Ab"),
    ("counter-{name}", {"name": "a\0b"}, "counter-a%00b"),
    ("counter-{name}", {"name": '"a"'}, "counter-%22a%22"),
    ("counter-{name}", {"name": "50%"}, "counter-50%25"),
    ("counter-{name}", {"name": "%2C"}, "counter-%252C"),
    ("counter-{name}", {"name": "%any"}, "counter-%25any"),
    ("counter-{name}", {"name": "*"}, "counter-%2A"),
    ("counter-{name}", {"name": "a/b"}, "counter-a%2Fb"),
    ("counter-{name}", {"name": "a:b"}, "counter-a%3Ab"),
    ("counter-{name}", {"name": "a+b"}, "counter-a%2Bb"),
    ("counter-{name}", {"name": ".."}, "counter-.."),
    ("counter-{name}", {"name": "~._-"}, "counter-~._-"),
    ("counter-{name}", {"name": "é"}, "counter-%C3%A9"),
    ("counter-{name}", {"name": "e\u0301"}, "counter-e%CC%81"),
    ("counter-{name}", {"name": "🏁"}, "counter-%F0%9F%8F%81"),
    ("list:{id}", {"id": "7"}, "list:7"),
    ("{a}:{b}", {"a": "1:2", "b": "3"}, "1%3A2:3"),
    ("{a}-{b}", {"a": "1-2", "b": "3"}, "1%2D2-3"),
    ("{a}-{b}", {"a": "1", "b": "2-3"}, "1-2%2D3"),
    ("{a}.{b}_{c}", {"a": "x.y", "b": "x_y", "c": "x-y"}, "x%2Ey.x%5Fy_x-y"),
    ("shop/{shop}/lot|{lot}@eu", {"shop": "a", "lot": "b"}, "shop/a/lot|b@eu"),
]


@pytest.mark.parametrize(("template", "values", "name"), NAMES)
def test_values_make_the_name(template: str, values: Mapping[str, str], name: str) -> None:
    assert TopicTemplate.parse(template).fill(values) == Topic(name, template)


@pytest.mark.parametrize(("template", "values", "name"), NAMES)
def test_the_name_gives_the_values_back(
    template: str, values: Mapping[str, str], name: str
) -> None:
    topic = TopicTemplate.parse(template).read(name)

    assert topic is not None
    assert dict(topic.params) == values


@given(template=templates(), data=st.data())
def test_every_name_is_read_as_what_filled_it(template: TopicTemplate, data: st.DataObject) -> None:
    values = {param: data.draw(VALUES) for param in template.params}
    topic = template.fill(values)
    assume("%h" not in topic.name)

    read = template.read(topic.name)

    assert read is not None
    assert dict(read.params) == values


@given(template=templates(), data=st.data())
def test_a_template_has_one_reading(template: TopicTemplate, data: st.DataObject) -> None:
    # Few characters, the separators among them: what would collide if anything could.
    awkward = st.text(
        st.sampled_from(["-", ":", ".", "_", "~", "%", "2", "D", "x", "é"]), min_size=1
    )
    one = {param: data.draw(awkward) for param in template.params}
    other = {param: data.draw(awkward) for param in template.params}
    assume(one != other)

    assert template.fill(one).name != template.fill(other).name


@pytest.mark.parametrize("template", ["{a}-{b}", "{a}:{b}", "x{a}y.z{b}", "{a}--{b}", "{a}x-{b}"])
def test_two_parameters_never_trade_characters(template: str) -> None:
    values = ["".join(v) for n in range(1, 4) for v in product("x-:.", repeat=n)]
    names = {fill(template, a=a, b=b) for a in values for b in values}

    assert len(names) == len(values) ** 2


@given(VALUES, VALUES)
def test_a_value_with_anything_in_it_stays_within_its_template(one: str, other: str) -> None:
    name = fill("page:{a}/{b}", a=one, b=other)

    assert name.startswith("page:")
    assert set(name) <= LITERAL | {"%"}


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("counter-{name}", "counter-"),
        ("counter-{name}", "counters"),
        ("counter-{name}", "Counter-blue"),
        ("counter-{name}", "counter-a b"),
        ("counter-{name}", "counter-a,counter-b"),
        ("counter-{name}", "counter-%2c"),  # we write %2C
        ("counter-{name}", "counter-%41"),  # we write A
        ("counter-{name}", "counter-%"),
        ("counter-{name}", "counter-%zz"),
        ("counter-{name}", "counter-%any"),
        ("counter-{name}", "counter-blue\n"),
        ("{a}-{b}", "1-2-3"),
        ("counters", "counters "),
        ("counters", ""),
    ],
)
def test_what_a_template_cannot_have_produced_is_not_read(template: str, name: str) -> None:
    assert TopicTemplate.parse(template).read(name) is None


def test_a_missing_value_is_named() -> None:
    with pytest.raises(KeyError, match="name"):
        fill("counter-{name}", title="blue")


def test_an_empty_value_is_refused_because_no_url_shows_it() -> None:
    with pytest.raises(ValueError, match="name"):
        fill("counter-{name}", name="")


def test_values_that_the_template_does_not_have_are_ignored() -> None:
    assert fill("counter-{name}", name="blue", page="2") == "counter-blue"


class Colour(enum.Enum):
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1


class Side(enum.StrEnum):
    LEFT = "left"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("blue", "blue"),
        (7, "7"),
        (7.0, "7.0"),
        (Colour.BLUE, "blue"),
        (Size.SMALL, "1"),
        (Side.LEFT, "left"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime.date(2026, 11, 23), "2026-11-23"),
    ],
)
def test_a_models_value_is_shown_as_in_a_url(value: object, shown: str) -> None:
    assert text(value) == shown


@given(ANY_TEXT)
def test_an_escaped_value_is_plain(value: str) -> None:
    assert set(escape(value)) <= set("%") | LITERAL - set(":/@|")


@given(ANY_TEXT)
def test_what_is_escaped_also_does_not_appear(value: str) -> None:
    assert not set("-._~") & set(escape(value, frozenset("-._~")))


def test_topics_are_equal_by_name_alone() -> None:
    assert Topic("a", "{x}", (("x", "a"),)) == Topic("a", "a")


# --- mistakes: (template, what is said) ---------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("", "a topic needs a name"),
        ("a b", "' ' cannot stand in a topic's name"),
        ("a,b", "',' cannot stand"),
        ("a;b", "';' cannot stand"),
        ("a\r\nb", r"'\\r' cannot stand"),
        ('"a"', "'\"' cannot stand"),
        ("a%20b", "'%' cannot stand"),
        ("café", "'é' cannot stand"),
        ("a{b", "'{' cannot stand"),
        ("a}b", "'}' cannot stand"),
        ("{}", "'{' cannot stand"),
        ("{1a}", "'{' cannot stand"),
        ("{a.b}", "'{' cannot stand"),
        ("{a:int}", "'{' cannot stand"),
        ("<a>", "'<' cannot stand"),
        ("{a}-{a}", "a parameter stands twice"),
        ("{a}{b}", "two parameters need one of"),
        ("{a}and{b}", "two parameters need one of"),
    ],
)
def test_a_template_that_cannot_be_used_is_explained(template: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TopicTemplate.parse(template)


# --- long names ---------------------------------------------------------------------------------


def test_a_name_of_the_longest_length_stays_as_it_is() -> None:
    name = fill("counter-{name}", name="x" * (MAX_NAME - len("counter-")))

    assert name == "counter-" + "x" * 192


def test_a_longer_name_is_its_beginning_and_a_digest() -> None:
    name = fill("counter-{name}", name="x" * 193)

    assert name == f"counter-{'x' * 158}%hf1c7ffb6922301b3e765f1db8000bf60"
    assert len(name) == MAX_NAME


@given(st.lists(st.text(min_size=60), min_size=2, max_size=8, unique=True), st.integers(1, 60))
def test_long_names_stay_distinct(tails: list[str], times: int) -> None:
    names = [fill("counter-{name}", name="x" * 3 * times + tail) for tail in tails]

    assert len(set(names)) == len(tails)
    assert max(map(len, names)) <= MAX_NAME


def test_a_value_that_looks_like_a_digest_is_not_one() -> None:
    long = fill("{name}", name="x" * 2000)
    forged = fill("{name}", name=long)

    assert forged != long


@given(ANY_TEXT)
def test_shortening_twice_is_shortening_once(name: str) -> None:
    once = shorten(escape(name) * 40)

    assert shorten(once) == once


# --- the key of all topics of a kind ------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("counters", "counters"),
        ("counter-{name}", "counter-%any"),
        ("{a}:{b}", "%any:%any"),
        ("shop/{shop}/lots", "shop/%any/lots"),
    ],
)
def test_the_key_of_a_kind(template: str, key: str) -> None:
    assert TopicTemplate.parse(template).any_key == key


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("counters", "counters"),
        ("counter-{name}", "counter-%all"),
        ("{a}:{b}", "%all:%all"),
        ("shop/{shop}/lots", "shop/%all/lots"),
    ],
)
def test_the_key_of_a_type(template: str, key: str) -> None:
    assert TopicTemplate.parse(template).type_key == key


@given(one=templates(), other=templates(), data=st.data())
def test_the_keys_of_kinds_and_types_and_of_the_site_are_no_topics_names(
    one: TopicTemplate, other: TopicTemplate, data: st.DataObject
) -> None:
    assume(other.params)
    broad = [other.any_key, other.type_key, SITE_KEY]
    awkward = st.one_of(ANY_TEXT, st.sampled_from(["%any", "%all", "%a", "any", *broad]))
    values = {param: data.draw(awkward) for param in one.params}

    assert one.fill(values).name not in broad
    assert not any(one.read(key) for key in broad)
    assert other.any_key != other.type_key
    assert [escape_key(key) for key in broad] == broad


# --- keys that a view adds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "escaped"),
    [
        ("counters", "counters"),
        ("shop/7:lots|eu@x", "shop/7:lots|eu@x"),
        ("a b", "a%20b"),
        ("a,b", "a%2Cb"),
        ("a\r\nb", "a%0D%0Ab"),
        ("é", "%C3%A9"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_any_text_makes_one_key(key: str, escaped: str) -> None:
    assert escape_key(key) == escaped


@given(template=templates(), data=st.data())
def test_a_topics_name_is_a_key_as_it_is(template: TopicTemplate, data: st.DataObject) -> None:
    name = template.fill({param: data.draw(ANY_TEXT) for param in template.params}).name

    assert escape_key(name) == name


# --- overlap: two templates that could share a channel --------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("counters", "counters"),
        ("counter-{name}", "counter-{id}"),
        ("counter-{name}", "counter-blue"),
        ("{anything}", "counters"),
        ("list-{id}", "list-{id}-comments"),
        ("{a}-{b}", "{a}.{b}"),
        ("{a}x", "x{a}"),
        ("a{x}", "a{x}b"),
    ],
)
def test_templates_that_share_a_name(one: str, other: str) -> None:
    first, second = TopicTemplate.parse(one), TopicTemplate.parse(other)
    name = overlap(first, second)

    assert name is not None
    assert first.read(name)
    assert second.read(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("counters", "counter-{name}"),
        ("counter-{name}", "counter-"),
        ("list:{id}", "list:{id}:comments"),
        ("list:{id}", "list:all:x"),
        ("{a}:{b}", "{a}"),
        ("{a}-{b}", "x"),
        ("{a}-{b}", "1-2-3"),
    ],
)
def test_templates_that_share_no_name(one: str, other: str) -> None:
    assert overlap(TopicTemplate.parse(one), TopicTemplate.parse(other)) is None


@given(one=similar_templates(), other=similar_templates())
def test_the_shared_name_is_one_that_both_read(one: TopicTemplate, other: TopicTemplate) -> None:
    name = overlap(one, other)

    assert name is None or (one.read(name) and other.read(name))


@given(one=similar_templates(), other=similar_templates())
def test_overlap_finds_what_trying_finds(one: TopicTemplate, other: TopicTemplate) -> None:
    # Every value of up to three characters out of those that the templates are made of.
    values = ["".join(v) for n in range(1, 4) for v in product("ab-", repeat=n)]
    names_one, names_other = (
        {
            template.fill(dict(zip(template.params, chosen, strict=True))).name
            for chosen in product(
                values[: 12 if len(template.params) == 2 else 39], repeat=len(template.params)
            )
        }
        for template in (one, other)
    )

    assert names_one.isdisjoint(names_other) or overlap(one, other) is not None


@given(one=similar_templates(), other=similar_templates())
def test_overlap_has_no_direction(one: TopicTemplate, other: TopicTemplate) -> None:
    assert (overlap(one, other) is None) == (overlap(other, one) is None)
