"""What edges take: the table, and how a key is spelled for those that do not take every one."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grip_edge_middleware.dialects import (
    AKAMAI,
    CACHE_GROUPS,
    CLOUDFLARE,
    CLOUDFRONT,
    DIALECTS,
    FASTLY,
    MAX_TAG,
    SOUIN,
    VARNISH,
    Dialect,
    escape_tag,
    unescape_tag,
)
from grip_edge_middleware.topics import escape_key

# Any text: what an app puts into the header itself comes through no `escape_key`.
ANY = st.text(st.characters(), min_size=1, max_size=80)
# Texts that differ in little: by case, or in what is escaped, or only beyond what fits.
PIECES = st.sampled_from(["a", "A", "~", "~41", "41", ":", "%3A", "h", "~h", "x" * 99])
ALIKE = st.lists(PIECES, min_size=1).map("".join)
TEXTS = ANY | ALIKE | st.builds(escape_key, ANY)
escaping = pytest.mark.parametrize(
    "dialect",
    [CLOUDFLARE, CLOUDFRONT, AKAMAI, CACHE_GROUPS],
    ids=lambda dialect: dialect.title,
)
every_dialect = pytest.mark.parametrize(
    "dialect", [*DIALECTS.values(), CACHE_GROUPS], ids=lambda dialect: dialect.title
)


# --- spelling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "spelled"),
    [
        ("counter-blue", "counter-blue"),
        ("%all", "~25all"),
        ("counter-%any", "counter-~25any"),
        ("%row:post:7", "~25row~3apost~3a7"),
        ("Shop/7@a|b", "~53hop~2f7~40a~7cb"),
        ("~", "~7e"),
        ("a%C3%A4", "a~25~433~25~414"),
        ("ä", "~c3~a4"),
        ("\ud800", "~ed~a0~80"),
    ],
)
def test_a_character_that_some_edge_forbids_or_folds_is_escaped(key: str, spelled: str) -> None:
    assert escape_tag(key, MAX_TAG) == spelled
    assert unescape_tag(spelled) == key


@escaping
@given(one=TEXTS, other=TEXTS)
@example(one="A", other="~41")
@example(one="A" * 200, other="A" * 201)
@example(one="a" * 128, other="a" * 129)
@example(one="a" * 94 + "~h" + "0" * 30, other="a" * 200)
def test_two_keys_never_have_one_spelling(dialect: Dialect, one: str, other: str) -> None:
    # As the edge compares them: in one case.
    is_one = dialect.spell(one).lower() == dialect.spell(other).lower()

    assert is_one == (one == other)


@given(key=TEXTS)
def test_a_key_that_is_not_shortened_is_read_back(key: str) -> None:
    spelled = escape_tag(key, 10_000)

    assert unescape_tag(spelled) == key


@given(key=TEXTS, limit=st.sampled_from([32, MAX_TAG]))
def test_what_was_read_is_spelled_as_it_was(key: str, limit: int) -> None:
    # An edge nearer to the app has named it already.
    spelled = escape_tag(key, limit)

    assert escape_tag(unescape_tag(spelled), limit) == spelled


@pytest.mark.parametrize("said", ["~zz", "~", "~4", "Foo~", "~ff", "~c3"])
def test_what_somebody_else_spelled_is_read_as_it_stands(said: str) -> None:
    assert unescape_tag(said) == said


# Each as its vendor says, of single characters.
ALPHABETS = {
    "Cloudflare": r"[!-+\--~]",  # printable, no space, and the comma separates
    "CloudFront": r"[!-+\--~]",
    "Akamai": r"[A-Za-z0-9&'^$!`#%.+~_|-]",
    "Cache groups": r"[ -~]",
}


@escaping
@given(key=TEXTS)
def test_a_spelled_key_keeps_to_the_vendors_alphabet_and_length(dialect: Dialect, key: str) -> None:
    spelled = dialect.spell(key).strip('"')

    assert re.fullmatch(f"{ALPHABETS[dialect.title]}+", spelled)
    assert spelled == spelled.lower()
    assert len(spelled) <= (dialect.max_key_bytes or 0)


@pytest.mark.parametrize("dialect", [VARNISH, FASTLY, SOUIN], ids=lambda dialect: dialect.title)
@given(key=TEXTS)
def test_who_takes_every_key_is_told_of_it_as_it_is(dialect: Dialect, key: str) -> None:
    assert dialect.spell(key) == key


def test_a_cache_group_is_a_quoted_string() -> None:
    assert CACHE_GROUPS.spell("counter-blue") == '"counter-blue"'


# --- the table ------------------------------------------------------------------------------------


@every_dialect
def test_the_budget_keeps_to_the_hard_limit(dialect: Dialect) -> None:
    assert 0 < dialect.budget <= (dialect.max_bytes or 1_000_000)


@every_dialect
def test_each_limit_has_a_source(dialect: Dialect) -> None:
    assert dialect.sources
    assert all(source.startswith("https://") for source in dialect.sources)


def test_as_many_keys_as_cloudfront_takes_fit_its_budget() -> None:
    most = CLOUDFRONT.max_keys or 0

    assert most * (MAX_TAG + 1) <= CLOUDFRONT.budget
