"""Routing: which paths are configured, in the spellings of the frameworks."""

from __future__ import annotations

import sys
from types import FrameType

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from grip_edge_middleware.routing import Matcher, Pattern

UUID = "0123abcd-0123-abcd-0123-0123456789ab"


def match(pattern: str, path: str) -> dict[str, str] | None:
    return Pattern.parse(pattern).match(path)


# --- converters: (pattern, path, parameters or None) ----------------------------------------------

PATHS = [
    ("/", "/", {}),
    ("/", "", None),
    ("/", "//", None),
    ("/counters/", "/counters/", {}),
    ("/counters/", "/counters", None),
    ("/counters/", "/counters/x", None),
    ("/counters/", "/counters/\n", None),
    ("/counters/", "x/counters/", None),
    ("/<name>/", "/blue/", {"name": "blue"}),
    ("/{name}/", "/blue/", {"name": "blue"}),
    ("/<name>/", "/a b,c;\r\n%2C/", {"name": "a b,c;\r\n%2C"}),
    ("/<name>/", "/\u2028\n/", {"name": "\u2028\n"}),
    ("/<name>/", "//", None),
    ("/<name>/", "/a/b/", None),
    ("/<default:name>", "/x", {"name": "x"}),
    ("/<string:name>", "/x", {"name": "x"}),
    ("/<string(length=2):code>", "/eu", {"code": "eu"}),
    ("/<string(minlength=1, maxlength=2):code>", "/eu", {"code": "eu"}),
    ("/{name:str}", "/x", {"name": "x"}),
    ("/<slug:name>", "/a-b_C9", {"name": "a-b_C9"}),
    ("/<slug:name>", "/a.b", None),
    ("/{name:slug}", "/é", None),
    ("/<int:id>", "/7", {"id": "7"}),
    ("/{id:int}", "/7", {"id": "7"}),
    ("/<int:id>", "/007", {"id": "7"}),
    ("/{id:int}", "/000", {"id": "0"}),
    ("/<int:id>", "/" + "9" * 5000, {"id": "9" * 5000}),
    ("/<int:id>", "/7x", None),
    ("/<int:id>", "/", None),
    ("/<int(min=1):id>", "/7", {"id": "7"}),
    ("/<float:x>", "/1.50", {"x": "1.5"}),
    ("/{x:float}", "/2", {"x": "2.0"}),
    ("/<float:x>", "/1.", None),
    ("/<uuid:id>", f"/{UUID.upper()}", {"id": UUID}),
    ("/{id:uuid}", f"/{UUID}", {"id": UUID}),
    ("/<uuid:id>", f"/{UUID}0", None),
    ("/<path:rest>", "/a/b//c", {"rest": "a/b//c"}),
    ("/{rest:path}", "/a/b", {"rest": "a/b"}),
    ("/<path:rest>/edit", "/a/b/edit", {"rest": "a/b"}),
    ("/<path:rest>/edit", "/edit", None),
    ("/x/<path:rest>", "/y/a", None),
    ("/<any(eu, us):region>/", "/eu/", {"region": "eu"}),
    ("/<any('e.u', \"us\"):region>/", "/e.u/", {"region": "e.u"}),
    ("/<any(e.u,us):region>/", "/exu/", None),
    ("/<any(eu,us):region>/", "/euus/", None),
    ("/a-<x>.json", "/a-1.json", {"x": "1"}),
    ("/a-<x>.json", "/a-1-json", None),
    ("/a-<x>.json", "/a-.json", None),
    ("/a-{x:int}-{y:int}.json", "/a-01-02.json", {"x": "1", "y": "2"}),
    ("/<x>-<y>", "/a-b-c", {"x": "a-b", "y": "c"}),
    ("/(a+)/<x>", "/(a+)/1", {"x": "1"}),
    ("/(a+)/<x>", "/aa/1", None),
    ("/@<x>", "/@1", {"x": "1"}),
]


@pytest.mark.parametrize(("pattern", "path", "params"), PATHS)
def test_a_pattern_reads_a_path(pattern: str, path: str, params: dict[str, str] | None) -> None:
    assert match(pattern, path) == params


@pytest.mark.parametrize(("pattern", "path", "params"), PATHS)
def test_the_matcher_reads_it_alike(pattern: str, path: str, params: dict[str, str] | None) -> None:
    matcher = Matcher([(Pattern.parse(pattern), "it")])

    assert matcher.match(path) == ([] if params is None else [("it", params)])


@pytest.mark.parametrize(("pattern", "path", "params"), [p for p in PATHS if p[2] is not None])
def test_the_parameters_make_a_path_that_is_read_the_same(
    pattern: str, path: str, params: dict[str, str]
) -> None:
    filled = Pattern.parse(pattern).fill(params)

    assert filled is not None
    assert match(pattern, filled) == params


def test_a_number_below_zero_is_read_where_the_app_reads_it() -> None:
    # werkzeug: "signed=True" widens the match.
    assert match("/t/<int(signed=True):n>", "/t/-5") == {"n": "-5"}


def test_a_uuid_without_hyphens_is_the_same_uuid() -> None:
    # Starlette's converter takes both spellings, and its view sees one value.
    assert match("/{id:uuid}", "/" + UUID.replace("-", "")) == {"id": UUID}


@pytest.mark.parametrize(
    ("pattern", "values"),
    [
        ("/<name>/", {"name": "a/b"}),
        ("/<name>/", {"name": ""}),
        ("/<int:id>/", {"id": "x"}),
        ("/<int:id>/", {"id": "7\n"}),
        ("/<any(a,b):x>", {"x": "c"}),
        ("/<path:rest>", {"rest": ""}),
    ],
)
def test_values_that_no_path_can_show_fill_no_path(pattern: str, values: dict[str, str]) -> None:
    assert Pattern.parse(pattern).fill(values) is None


def test_parameters_are_named_in_order() -> None:
    assert Pattern.parse("/<b>/{a:int}-<path:c>").params == ("b", "a", "c")


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("", 'a path begins with "/"'),
        ("counters/", 'a path begins with "/"'),
        ("http://host/counters/", 'a path begins with "/"'),
        ("/<a>/{a}", "a parameter stands twice"),
        ("/<a", "'<' is not part of a parameter"),
        ("/a>", "'>' is not part of a parameter"),
        ("/{a", "'{' is not part of a parameter"),
        ("/{}", "'{' is not part of a parameter"),
        ("/<>", "'<' is not part of a parameter"),
        ("/<1a>", "'<' is not part of a parameter"),
        ("/{int:id}", "unknown converter 'id'; known are any"),
        ("/<id:int>", "unknown converter 'id'; known are any"),
        ("/<any:x>", "unknown converter 'any'"),
        ("/<INT:id>", "unknown converter 'INT'"),
        ("/<regex('[a-z]'):x>", "unknown converter 'regex'"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_explained(pattern: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(")):
        Pattern.parse(pattern)


@pytest.mark.parametrize("pattern", ["/<a²>", "/{x·}", "/<٣>", "/<é>"])
def test_a_name_that_is_no_identifier_is_a_value_error_or_works(pattern: str) -> None:
    try:
        parsed = Pattern.parse(pattern)
    except ValueError:
        return

    assert parsed.match("/1") is not None


@given(st.text("/<>{}()|:aint²é.*-_1\n\\ ,'"))
def test_any_text_is_a_pattern_or_a_value_error(text: str) -> None:
    try:
        pattern = Pattern.parse("/" + text)
    except ValueError:
        return

    assert pattern.text == "/" + text


# --- the matcher ----------------------------------------------------------------------------------


def matcher(*patterns: str) -> Matcher[str]:
    return Matcher([(Pattern.parse(pattern), pattern) for pattern in patterns])


def test_all_patterns_of_a_path_come_in_the_order_of_the_settings() -> None:
    patterns = ["/<path:p>", "/a/<x>", "/a/b", "/<y>/b", "/a/<int:z>", "/<path:q>/b", "/a/b"]

    assert [text for text, _ in matcher(*patterns).match("/a/b")] == [
        "/<path:p>",
        "/a/<x>",
        "/a/b",
        "/<y>/b",
        "/<path:q>/b",
        "/a/b",
    ]


def test_each_pattern_has_its_own_parameters() -> None:
    assert matcher("/<a>", "/<b>", "/<int:c>").match("/07") == [
        ("/<a>", {"a": "07"}),
        ("/<b>", {"b": "07"}),
        ("/<int:c>", {"c": "7"}),
    ]


def test_one_pattern_may_stand_for_several_values() -> None:
    pattern = Pattern.parse("/<a>")

    assert Matcher([(pattern, 1), (pattern, 2)]).match("/x") == [(1, {"a": "x"}), (2, {"a": "x"})]


def test_a_shorter_beginning_does_not_hide_a_longer_one() -> None:
    patterns = ["/a<x>", "/abc<x>", "/ab<x>", "/<x>"]

    assert [text for text, _ in matcher(*patterns).match("/abcd")] == patterns
    assert [text for text, _ in matcher(*patterns).match("/ab")] == ["/a<x>", "/<x>"]


@pytest.mark.parametrize("path", ["", "*", "x", "counters/", "\n", "http://host/counters/"])
def test_what_is_no_path_matches_nothing(path: str) -> None:
    assert matcher("/", "/counters/", "/<x>").match(path) == []


PIECES = [
    "a",
    "b",
    "a-",
    ".json",
    "<x>",
    "<y>",
    "<int:i>",
    "{j:int}",
    "<slug:s>",
    "<any(a,b-,b):o>",
    "<float:f>",
    "<path:p>",
    "/",
    "/",
    "/",
]


@given(
    st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), max_size=12),
    st.lists(st.sampled_from(["/", "/", "a", "b", "-", "07", "1.5", ".json", "é\n"]), max_size=8),
)
def test_the_matcher_finds_what_trying_each_pattern_finds(
    texts: list[str], pieces: list[str]
) -> None:
    patterns = []
    for text in texts:
        try:
            patterns.append(Pattern.parse("/" + text))
        except ValueError:
            continue
    assume(patterns)
    path = "/" + "".join(pieces)
    tried = [(p.text, params) for p in patterns if (params := p.match(path)) is not None]

    assert Matcher([(p, p.text) for p in patterns]).match(path) == tried


# --- what it costs --------------------------------------------------------------------------------


def count_calls(matcher: Matcher[int], path: str) -> int:
    """Count every call of Python and C code that finding the path takes."""
    calls = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        matcher.match(path)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(
    ("shape", "path"),
    [
        ("/r{i}/<id>", "/r7/1"),
        ("/r{i}/<id>", "/none/1"),
        ("/r{i}-<x>", "/r7-1"),
        ("/r{i}-<x>", "/none"),
        ("/x/<id>/r{i}", "/x/1/r7"),
        ("/x/<id>/r{i}", "/x/1/none"),
        ("/<a>/<b>/r{i}/<path:rest>", "/1/2/r7/3/4"),
        ("/x/<int:a>-<b>/r{i}-<c>.json", "/x/1-2/r7-3.json"),
        ("/r{i}.json", "/r7.json"),
    ],
)
def test_a_thousand_routes_cost_no_more_than_ten(shape: str, path: str) -> None:
    few, many = (
        Matcher([(Pattern.parse(shape.replace("{i}", str(i))), i) for i in range(count)])
        for count in (10, 1000)
    )

    assert [i for i, _ in many.match(path)] == [i for i, _ in few.match(path)]
    assert count_calls(few, path) > 1
    assert count_calls(many, path) <= 3 * count_calls(few, path)


def test_a_path_of_many_segments_is_answered() -> None:
    deep = matcher("/<path:p>", "/<a>/<b>").match("/x" * 5_000)

    assert [text for text, _ in deep] == ["/<path:p>"]
