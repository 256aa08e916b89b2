"""The policy: with which headers a response leaves."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from copy import copy
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.gate import Gate
from grip_edge_middleware.grip import etag
from grip_edge_middleware.notes import Notes
from grip_edge_middleware.policy import MAX_REMEMBERED, Plan, Policy, RequestFacts
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.types import Headers
from tests.gates import StubGate

GET = RequestFacts("GET", StubGate())
HEAD = RequestFacts("HEAD", StubGate())
SSE = RequestFacts("GET", StubGate(), accept="text/event-stream")
AUTHORIZED = RequestFacts("GET", StubGate(), is_authorized=True)

HTML: Headers = [("Content-Type", "text/html")]
EVENTS: Headers = [("Content-Type", "text/event-stream; charset=utf-8")]
FRESH: Headers = [
    ("Cache-Control", "max-age=0, s-maxage=600"),
    ("Surrogate-Control", "max-age=600, stale-if-error=86400"),
]
DO_NOT_STORE: Headers = [
    ("Cache-Control", "private, no-store"),
    ("Surrogate-Control", "no-store"),
]
KEY: Headers = [("Surrogate-Key", "%all c-%all c-blue")]
STREAM: Headers = [("Grip-Hold", "stream"), ("Grip-Channel", "c-blue")]
LONG_POLL: Headers = [
    ("Grip-Hold", "response"),
    ("Grip-Channel", "c-blue; prev-id=7; filter=require-sub"),
    ("Grip-Timeout", "55"),
]


def of_7(names: Iterable[str]) -> dict[str, str]:
    return dict.fromkeys(names, "7")


def poll(has: str = "", gate: Gate | None = None) -> RequestFacts:
    """A request of who has a response with that tag; all topics had version 7."""
    versions = of_7(["a", "b", "c-blue"])
    return RequestFacts("GET", gate or StubGate(of_7), versions=versions, if_none_match=has)


def noted(
    keys: Iterable[str] = (),
    rows: Iterable[str] | None = None,
    *,
    declines_hold: bool = False,
    is_unclear: bool = False,
) -> Notes:
    """What a view said: surrogate keys, and the rows that it read."""
    notes = Notes(scopes=None if rows is None else Scopes())
    notes.keys.extend(keys)
    notes.rows.update(dict.fromkeys(rows or ()))
    notes.declines_hold = declines_hold
    notes.is_unclear = is_unclear
    return notes


POLL = poll()
POLL_AGAIN = poll('"7"')
POLL_LATE = poll('"6"')
ETAG: Headers = [("ETag", '"7"')]


def policy(topics: dict[str, Any] | None = None, **settings: Any) -> Policy:
    given = {"c-{name}": {"routes": ["/c/<name>/"]}} if topics is None else topics
    defaults = {"grip_url": None, "cdn": "varnish://cache", "hold": "stream"}
    return Policy(Settings.parse({**defaults, **settings, "topics": given}, {}))


def plan(path: str = "/c/blue/", topics: dict[str, Any] | None = None, **settings: Any) -> Plan:
    found = policy(topics, **settings).match(path)
    assert found is not None
    return found


def leave(
    headers: Headers,
    *,
    of: Plan | None = None,
    request: RequestFacts = GET,
    status: int = 200,
    notes: Notes | None = None,
) -> Headers:
    return (of or plan()).apply(request, status, headers, notes or Notes())


def values(headers: Headers, wanted: str) -> list[str]:
    return [value for name, value in headers if name.lower() == wanted.lower()]


def value(headers: Headers, wanted: str) -> str:
    [only] = values(headers, wanted)
    return only


def is_kept_out(headers: Headers) -> bool:
    return (
        values(headers, "Surrogate-Control") == ["no-store"]
        and "no-store" in value(headers, "Cache-Control")
        and not values(headers, "Surrogate-Key")
        and not values(headers, "Cache-Tag")
        and set(values(headers, "CDN-Cache-Control")) <= {"no-store"}
    )


# --- 1. what is ours ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/c/", "/c/blue", "/c/blue/x/", "", "*"])
def test_a_path_without_a_route_has_no_plan(path: str) -> None:
    assert policy().match(path) is None


def test_a_get_is_tagged_cached_and_held() -> None:
    assert leave(HTML) == HTML + FRESH + KEY + STREAM


def test_an_event_stream_is_kept_alive() -> None:
    assert leave(EVENTS) == [
        *EVENTS,
        *FRESH,
        *KEY,
        *STREAM,
        ("Grip-Keep-Alive", r":\n\n; format=cstring; timeout=20"),
    ]


def test_the_apps_own_headers_are_not_changed_in_place() -> None:
    headers = [*HTML, ("Cache-Control", "max-age=1"), ("Surrogate-Key", "own")]
    before = list(headers)
    leave(headers)

    assert headers == before


OTHERS = st.sampled_from(
    ["Content-Type", "Content-Length", "ETag", "Last-Modified", "Link", "X-Thing", "x-thing", "Age"]
)


@given(
    st.lists(st.tuples(OTHERS, st.text("abc,;= *\xff")), max_size=8),
    st.sampled_from([GET, HEAD, SSE, AUTHORIZED]),
    st.sampled_from([200, 204, 301, 304, 404, 500]),
    st.booleans(),
    st.booleans(),
)
def test_headers_that_are_none_of_ours_keep_their_order_and_value(
    headers: Headers, request_: RequestFacts, status: int, has_cdn: bool, is_private: bool
) -> None:
    private = [("Set-Cookie", "a=b"), ("Set-Cookie", "c=d, e")] if is_private else []
    given_headers = [*headers, *private]
    of = plan(cdn="varnish://cache" if has_cdn else None, accept="text/event-stream")

    left = leave(given_headers, of=of, request=request_, status=status)
    ours = {"cache-control", "surrogate-control", "surrogate-key", "vary"}
    assert [
        (n, v) for n, v in left if n.lower() not in ours and not n.startswith("Grip-")
    ] == given_headers


# --- 2. methods and statuses ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE", "get"])
def test_what_only_changes_something_passes_untouched(method: str) -> None:
    headers = [*HTML, ("Surrogate-Key", "own"), ("Cache-Control", "max-age=1")]

    assert leave(headers, request=GET._replace(method=method)) is headers


def test_a_head_is_cached_but_not_held() -> None:
    assert leave(HTML, request=HEAD) == HTML + FRESH + KEY


@pytest.mark.parametrize("status", [203, 204, 206, 300, 301, 302, 308, 404, 405, 410, 414, 501])
def test_a_status_that_caches_keep_unasked_can_be_purged(status: int) -> None:
    # Nothing else is added: neither freshness nor a hold.
    assert leave(HTML, status=status) == HTML + KEY


@pytest.mark.parametrize("status", [0, 201, 303, 304, 307, 400, 401, 403, 500, 502, 503])
def test_another_status_passes_untouched(status: int) -> None:
    assert leave(HTML, status=status) is HTML


@pytest.mark.parametrize(
    "freshness",
    [
        ("Cache-Control", "public, max-age=60"),
        ("cache-control", "s-maxage=60"),
        ("Surrogate-Control", "max-age=60"),
        ("CDN-Cache-Control", "max-age=60"),
        ("Expires", "Thu, 01 Dec 2033 16:00:00 GMT"),
    ],
)
@pytest.mark.parametrize("status", [403, 404, 500])
def test_what_the_app_made_cacheable_can_be_purged(freshness: tuple[str, str], status: int) -> None:
    headers = [freshness, *HTML]

    assert leave(headers, status=status) == [*headers, *KEY]


@pytest.mark.parametrize(
    "private",
    [
        ("Set-Cookie", "a=b"),
        ("Cache-Control", "private, max-age=60"),
        ("Cache-Control", "no-store"),
        ("Surrogate-Control", "no-store"),
        ("Vary", "*"),
    ],
)
@pytest.mark.parametrize("status", [404, 301, 500])
def test_a_private_error_passes_untouched(private: tuple[str, str], status: int) -> None:
    headers = [private, *HTML]

    assert leave(headers, status=status) is headers


def test_the_keys_of_a_cacheable_404_are_merged() -> None:
    headers = [("Surrogate-Key", "own c-blue")]

    assert leave(headers, status=404) == [("Surrogate-Key", "%all c-%all c-blue own")]


def test_a_404_whose_keys_do_not_fit_is_kept_out() -> None:
    headers = [*HTML, ("Surrogate-Key", "x" * 99)]

    assert leave(headers, status=404, of=plan(key_budget=50)) == HTML + DO_NOT_STORE


# --- 3. what is private ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "private",
    [
        [("Set-Cookie", "session=1")],
        [("set-cookie", "a=b"), ("SET-COOKIE", "c=d")],
        [("Vary", "*")],
        [("Vary", " * ")],
        [("Vary", "Accept-Encoding, *")],
        [("Surrogate-Control", "no-store")],
        [("Surrogate-Control", "No-Store, max-age=0")],
        [("Set-Cookie", "a=b"), ("Cache-Control", "public, max-age=60")],
        [("Set-Cookie", "a=b"), ("CDN-Cache-Control", "max-age=60"), ("Surrogate-Key", "own")],
    ],
)
def test_what_is_for_one_client_is_kept_out_of_every_cache(private: Headers) -> None:
    left = leave([*HTML, *private])

    assert is_kept_out(left)
    assert values(left, "Set-Cookie") == values(private, "Set-Cookie")
    assert value(left, "Cache-Control") == "private, no-store"
    assert left[-2:] == STREAM


@pytest.mark.parametrize(
    "said",
    [
        "private",
        "no-store",
        "private, max-age=60",
        "NO-STORE",
        'private="x-secret"',
        "no-cache,no-store",
    ],
)
def test_what_the_app_says_to_browsers_stays(said: str) -> None:
    left = leave([("Cache-Control", said), ("Surrogate-Control", "max-age=60"), *HTML])

    assert left == [
        ("Cache-Control", said),
        *HTML,
        ("Surrogate-Control", "no-store"),
        *STREAM,
    ]


def test_the_answer_to_an_authorized_request_is_kept_out() -> None:
    headers = [*HTML, ("Cache-Control", "max-age=60"), ("Expires", "0"), ("Surrogate-Key", "own")]

    assert leave(headers, request=AUTHORIZED) == HTML + DO_NOT_STORE + STREAM


@pytest.mark.parametrize("status", [302, 404])
def test_another_status_to_an_authorized_request_is_kept_out_too(status: int) -> None:
    left = leave([*HTML, ("Surrogate-Key", "own")], request=AUTHORIZED, status=status)

    assert left == HTML + DO_NOT_STORE


def test_the_answer_to_an_authorized_request_is_cached_if_the_topic_is_public() -> None:
    assert leave(HTML, of=plan(public=True), request=AUTHORIZED) == HTML + FRESH + KEY + STREAM


def test_a_path_is_public_only_if_all_its_topics_are() -> None:
    topics = {
        "a": {"routes": [{"path": "/", "public": True}], "hold": None},
        "b": {"routes": ["/"], "hold": None},
    }

    assert is_kept_out(leave(HTML, of=plan("/", topics), request=AUTHORIZED))


def test_a_public_topic_does_not_publish_a_cookie() -> None:
    assert is_kept_out(leave([("Set-Cookie", "a=b")], of=plan(public=True)))


def test_without_a_cdn_that_is_told_nothing_is_made_cacheable() -> None:
    headers = [*HTML, ("Cache-Control", "max-age=3")]

    assert leave(headers, of=plan(cdn=None)) == headers + KEY + STREAM


def test_an_edge_ttl_of_zero_keeps_a_response_out() -> None:
    assert leave(HTML, of=plan(edge_ttl=0)) == HTML + DO_NOT_STORE + STREAM


# --- Accept ---------------------------------------------------------------------------------------

BY_ACCEPT: dict[str, Any] = {
    "c-{name}": {
        "routes": [
            {"path": "/c/<name>/", "hold": "response"},
            {"path": "/c/<name>/", "hold": "stream", "accept": "text/event-stream"},
        ]
    }
}


@pytest.mark.parametrize(
    ("accept", "hold"),
    [
        ("", "response"),
        ("*/*", "response"),
        ("text/*", "response"),
        ("text/html", "response"),
        ("text/event-streams", "response"),
        ("text/event-stream", "stream"),
        ("TEXT/Event-Stream;q=0.9", "stream"),
        ("text/html , text/event-stream ; q=1", "stream"),
    ],
)
def test_who_asks_for_a_stream_gets_one(accept: str, hold: str) -> None:
    left = leave(HTML, of=plan(topics=BY_ACCEPT, hold=None), request=POLL._replace(accept=accept))

    assert value(left, "Grip-Hold") == hold
    assert value(left, "Grip-Channel").startswith("c-blue; prev-id=7")
    assert value(left, "Vary") == "Accept"


def test_who_does_not_ask_for_the_only_hold_is_answered_without() -> None:
    left = leave(HTML, of=plan(accept="text/event-stream"))

    assert left == [*HTML, ("Vary", "Accept"), *FRESH, *KEY]


@pytest.mark.parametrize(
    ("lines", "merged"),
    [
        ([], ["Accept"]),
        (["Cookie"], ["Cookie, Accept"]),
        (["Cookie", "Origin"], ["Cookie, Origin, Accept"]),
        (["accept"], ["accept"]),
        (["Cookie, ACCEPT"], ["Cookie, ACCEPT"]),
        (["Cookie", "Accept"], ["Cookie", "Accept"]),
        (["Accept-Encoding"], ["Accept-Encoding, Accept"]),
        (["*"], ["*"]),
    ],
)
def test_vary_names_accept_once(lines: list[str], merged: list[str]) -> None:
    headers = [("Vary", line) for line in lines]

    assert values(leave(headers, of=plan(accept="a/b")), "Vary") == merged


def test_vary_is_left_alone_where_accept_decides_nothing() -> None:
    assert value(leave([("Vary", "Cookie")]), "Vary") == "Cookie"


# --- several topics on one path -------------------------------------------------------------------


def test_the_shortest_times_of_all_topics_count() -> None:
    topics = {
        "a": {
            "routes": ["/"],
            "edge_ttl": 60,
            "browser_ttl": 9,
            "stale_if_error": 7,
            "keep_alive": 30,
        },
        "b": {
            "routes": ["/"],
            "edge_ttl": 90,
            "browser_ttl": 2,
            "stale_if_error": 8,
            "keep_alive": 15,
        },
    }
    left = leave(EVENTS, of=plan("/", topics))

    assert left == [
        *EVENTS,
        ("Cache-Control", "max-age=2, s-maxage=60"),
        ("Surrogate-Control", "max-age=60, stale-if-error=7"),
        ("Surrogate-Key", "%all a b"),
        ("Grip-Hold", "stream"),
        ("Grip-Channel", "a, b"),
        ("Grip-Keep-Alive", r":\n\n; format=cstring; timeout=15"),
    ]


def test_a_topic_without_a_hold_is_tagged_and_not_subscribed() -> None:
    topics = {"a": {"routes": ["/"]}, "b": {"routes": ["/"], "hold": None}}
    left = leave(HTML, of=plan("/", topics))

    assert value(left, "Surrogate-Key") == "%all a b"
    assert value(left, "Grip-Channel") == "a"


SOCKET = {
    "c-{name}": {"routes": ["/c/<name>/"], "hold": "ws"},
}
SIGNED = {"grip_url": f"http://h:1?verify-key={'k' * 32}", "secret": "s" * 32}


def test_a_get_of_a_sockets_path_is_a_page_that_is_not_held() -> None:
    page = leave(HTML, of=plan(topics=SOCKET, **SIGNED))

    assert page == HTML + FRESH + KEY


def test_a_path_may_have_a_stream_beside_its_sockets() -> None:
    routes = [{"path": "/c/<name>/", "hold": "stream"}, {"path": "/c/<name>/", "hold": "ws"}]

    page = leave(HTML, of=plan(topics={"c-{name}": {"routes": routes}}, **SIGNED))

    assert value(page, "Grip-Hold") == "stream"


def test_topics_with_another_hold_are_not_subscribed() -> None:
    topics = {
        "a": {"routes": ["/"], "hold": "response"},
        "b": {"routes": [{"path": "/", "accept": "text/event-stream"}]},
    }
    of, versions = plan("/", topics), {"a": "7", "b": "8"}

    polled = leave(HTML, of=of, request=POLL)
    assert value(polled, "Grip-Hold") == "response"
    assert value(polled, "Grip-Channel") == "a; prev-id=7; filter=require-sub"
    streamed = leave(HTML, of=of, request=SSE._replace(versions=versions))
    assert value(streamed, "Grip-Hold") == "stream"
    assert value(streamed, "Grip-Channel") == "b; prev-id=8"


def test_a_topic_that_two_routes_show_is_named_once() -> None:
    routes = ["/c/<name>/", "/c/<slug:name>/"]
    topics = {"c-{name}": {"routes": routes, "payload": str}}
    left = leave(HTML, of=plan(topics=topics))

    assert value(left, "Surrogate-Key") == "%all c-%all c-blue"
    assert value(left, "Grip-Channel") == "c-blue"


def test_a_proxy_is_given_no_more_channels_than_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    topics = {f"t{i:02}": {"routes": ["/"]} for i in range(25)}
    with caplog.at_level(logging.WARNING):
        left = leave(HTML, of=plan("/", topics))

    assert value(left, "Grip-Channel") == ", ".join(f"t{i:02}" for i in range(20))
    assert value(left, "Surrogate-Key").split(" ") == ["%all", *(f"t{i:02}" for i in range(25))]
    assert caplog.messages == ["/ shows 25 topics; a proxy takes 20"]


# --- 4. keys --------------------------------------------------------------------------------------


def test_keys_are_merged_once_each_and_the_broadest_first() -> None:
    topics = {
        "c-{name}": {"routes": ["/c/<name>/"]},
        "all": {"routes": ["/c/<name>/"], "hold": None},
    }
    headers = [("surrogate-key", "own,c-blue"), *HTML, ("SURROGATE-KEY", " more tag ")]
    left = leave(headers, of=plan(topics=topics), notes=noted(["tag", "all"]))

    keys = "%all all c-%all c-blue tag own more"
    assert left == [*HTML, *FRESH, ("Surrogate-Key", keys), *STREAM]


def test_a_page_has_the_type_key_of_every_topic_that_it_is_tagged_with() -> None:
    topics = {
        "c-{name}": {"routes": ["/c/<name>/"]},
        "d-{a}:{b}": {},
        "e": {},
    }
    left = leave(
        [*HTML, ("Surrogate-Key", "d-1:2 own")],
        of=plan(topics=topics),
        notes=noted(["c-red", "e"]),
    )

    assert value(left, "Surrogate-Key") == ("%all c-%all e d-%all:%all c-blue c-red d-1:2 own")


def test_keys_that_just_fit_are_all_sent() -> None:
    notes = noted(["c-1", "c-2"])

    assert value(leave(HTML, of=plan(key_budget=26), notes=notes), "Surrogate-Key") == (
        "%all c-%all c-blue c-1 c-2"
    )


def test_keys_over_budget_become_the_key_of_their_kind() -> None:
    notes = noted(["c-1", "stays", "c-2"])
    left = leave(HTML, of=plan(key_budget=31), notes=notes)

    assert left == [*HTML, *FRESH, ("Surrogate-Key", "%all c-%all c-%any stays"), *STREAM]


def test_a_page_of_shortened_names_is_kept_out() -> None:
    # A shortened name does not say of which kind it is, so it cannot be rolled up.
    names = [plan(f"/c/{'é' * 100}{i}/").shown[0].topic.name for i in range(30)]

    assert is_kept_out(leave(HTML, notes=noted(names)))


def test_keys_that_do_not_fit_at_all_keep_the_response_out() -> None:
    notes = noted(["x" * 60])
    left = leave(
        [*HTML, ("Cache-Control", "max-age=9"), ("Surrogate-Key", "own")],
        of=plan(key_budget=50),
        notes=notes,
    )

    assert left == HTML + DO_NOT_STORE + STREAM


def test_a_route_over_budget_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    topics = {"w": {"routes": ["/over-budget-once"]}}
    over = plan("/over-budget-once", topics, key_budget=5)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            leave(HTML, of=over, notes=noted(["x" * 9]))

    [warning] = caplog.messages
    assert warning.startswith("/over-budget-once: the surrogate keys exceed key_budget (5 bytes)")


@given(st.lists(st.text("ab-c%:", min_size=1, max_size=12), max_size=30), st.integers(1, 200))
def test_a_stored_response_has_all_its_keys(tags: list[str], budget: int) -> None:
    of = plan(key_budget=budget)
    left = leave(HTML, of=of, notes=noted(tags))

    if not is_kept_out(left):
        sent = value(left, "Surrogate-Key").split(" ")
        assert len(" ".join(sent)) <= budget
        assert all(key in sent or of.policy.any_key(key) in sent for key in ["c-blue", *tags])
        assert sent[:2] == ["%all", "c-%all"]


# --- 5. freshness ---------------------------------------------------------------------------------


def test_the_settings_times_replace_the_apps() -> None:
    headers = [("Cache-Control", "max-age=1"), ("Expires", "0"), ("X-Other", "max-age=1")]

    assert leave(headers) == [("X-Other", "max-age=1"), *FRESH, *KEY, *STREAM]


@pytest.mark.parametrize(
    "said",
    [
        ("Cache-Control", "public, s-maxage=5"),
        ("Surrogate-Control", 'max-age="5"'),
        ("CDN-Cache-Control", "max-age=5"),
        ("Surrogate-Control", "content=ESI, MAX-AGE=5"),
    ],
)
def test_a_shorter_lifetime_that_the_app_gives_caches_prevails(said: tuple[str, str]) -> None:
    left = leave([said])

    assert value(left, "Surrogate-Control").startswith("max-age=5,")
    assert "s-maxage=5" in value(left, "Cache-Control")


@pytest.mark.parametrize("name", ["Cache-Control", "Surrogate-Control", "CDN-Cache-Control"])
@pytest.mark.parametrize("said", ["private", "no-store", "no-cache"])
def test_what_the_app_forbids_one_kind_of_cache_it_forbids_ours(name: str, said: str) -> None:
    left = leave([(name, said)])

    assert values(left, "Surrogate-Control") == ["no-store"]
    assert values(left, "Surrogate-Key") == []
    assert {"private", "no-store", "no-cache"} & set(value(left, "Cache-Control").split(", "))


def test_without_stale_if_error_nothing_is_said_of_it() -> None:
    left = leave(HTML, of=plan(stale_if_error=0, edge_ttl=5, browser_ttl=3))

    assert value(left, "Cache-Control") == "max-age=3, s-maxage=5"
    assert value(left, "Surrogate-Control") == "max-age=5"


def test_while_purges_fail_a_page_is_kept_for_seconds_only() -> None:
    left = leave(HTML, request=GET._replace(longest_ttl=5))

    assert value(left, "Cache-Control") == "max-age=0, s-maxage=5"
    # The app's failure alone shows it later, as it would show what was purged softly.
    assert value(left, "Surrogate-Control") == "max-age=5, stale-if-error=86400"


def test_while_purges_fail_a_shorter_lifetime_stays() -> None:
    left = leave(HTML, of=plan(edge_ttl=3), request=GET._replace(longest_ttl=5))

    assert value(left, "Surrogate-Control").startswith("max-age=3,")


def test_a_page_that_may_not_be_kept_while_purges_fail_is_kept_out() -> None:
    assert is_kept_out(leave(HTML, request=GET._replace(longest_ttl=0)))


# --- 7. GRIP --------------------------------------------------------------------------------------


def test_a_view_may_decline_the_hold() -> None:
    assert leave(HTML, notes=noted(declines_hold=True)) == HTML + FRESH + KEY


@pytest.mark.parametrize("name", ["Grip-Hold", "grip-hold"])
def test_the_apps_own_hold_is_respected(name: str) -> None:
    headers = [(name, "response"), ("Grip-Channel", "mine; prev-id=3")]

    assert leave(headers) == headers + FRESH + KEY


def test_a_private_response_is_held_all_the_same() -> None:
    assert leave([("Set-Cookie", "a=b")])[-2:] == STREAM


@pytest.mark.parametrize(
    ("content_type", "is_kept_alive"),
    [
        ("text/event-stream", True),
        ("text/event-stream;charset=utf-8", True),
        ("Text/Event-Stream", True),
        ("text/html", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_only_an_event_stream_is_kept_alive(content_type: str, is_kept_alive: bool) -> None:
    # ":\n\n" is a comment there; in anything else it would be content.
    left = leave([("content-type", content_type)])

    assert bool(values(left, "Grip-Keep-Alive")) == is_kept_alive


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"keep_alive": 0}, "switched off"), ({"hold": "response"}, "a long-poll has a timeout")],
)
def test_a_stream_that_is_not_to_be_kept_alive_is_not(
    settings: dict[str, Any], reason: str
) -> None:
    left = leave(EVENTS, of=plan(**settings), request=POLL)

    assert values(left, "Grip-Keep-Alive") == [], reason


# --- long-polls -----------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [POLL, POLL_AGAIN, POLL_LATE])
def test_the_cache_compares_what_a_long_poll_has(request_: RequestFacts) -> None:
    left = leave(HTML, of=plan(hold="response"), request=request_)

    assert left == HTML + ETAG + FRESH + KEY + LONG_POLL


def test_without_a_cache_who_has_the_response_is_held_until_it_is_another() -> None:
    of = plan(hold="response", cdn=None)

    assert leave(HTML, of=of, request=POLL) == HTML + ETAG + KEY
    assert leave(HTML, of=of, request=POLL_LATE) == HTML + ETAG + KEY
    held = leave(HTML, of=of, request=POLL_AGAIN)
    assert held == HTML + ETAG + KEY + LONG_POLL + [("Grip-Status", "304")]


@pytest.mark.parametrize(
    ("tag", "has", "is_held"),
    [
        ('"x"', '"x"', True),
        ('W/"x"', '"x"', True),
        ('"x"', 'W/"x"', True),
        ('"x"', '"w", "x"', True),
        ('"x"', '"y"', False),
        ('"x"', "", False),
        ("", '"x"', False),
        ("x", '"xy"', False),
    ],
)
def test_the_tag_of_the_app_itself_is_compared(tag: str, has: str, is_held: bool) -> None:
    left = leave([("ETag", tag)], of=plan(hold="response", cdn=None), request=poll(has))

    assert values(left, "ETag") == [tag]
    assert bool(values(left, "Grip-Hold")) == is_held


@pytest.mark.parametrize("cdn", ["varnish://cache", None])
def test_a_304_of_the_app_itself_is_held(cdn: str | None) -> None:
    of = plan(hold="response", cdn=cdn)

    assert leave(ETAG, of=of, request=POLL_AGAIN, status=304) == ETAG + LONG_POLL


def test_a_304_of_a_stream_is_not_held() -> None:
    assert leave(ETAG, request=POLL_AGAIN, status=304) == ETAG


def test_a_long_poll_of_several_topics_has_a_tag_of_all_versions() -> None:
    topics = {
        n: {"routes": ["/"], "hold": "response", "hold_timeout": t} for n, t in (("a", 9), ("b", 8))
    }
    left = leave(HTML, of=plan("/", topics), request=POLL)

    assert value(left, "ETag") == etag(["7", "7"])
    assert value(left, "Grip-Channel").split(", ") == [
        "a; prev-id=7; filter=require-sub",
        "b; prev-id=7; filter=require-sub",
    ]
    assert value(left, "Grip-Timeout") == "8"


def test_the_tag_is_of_all_that_the_response_shows() -> None:
    """Else who has it would be held although something else on it has changed."""
    topics = {"a": {"routes": ["/"], "hold": "response"}, "b": {"routes": ["/"], "hold": None}}
    of = plan("/", {**topics, "c-{name}": {"hold": None}})
    tags = [
        value(leave(headers, of=of, request=POLL, notes=noted(keys)), "ETag")
        for headers, keys in ((HTML, []), (HTML, ["c-blue"]), ([("Surrogate-Key", "c-red")], []))
    ]

    assert tags[0] == etag(["7", "7"])
    assert tags[1] == tags[2] == etag(["7", "7", "7"])
    assert leave(HTML, of=of, request=POLL, notes=noted(["no-topic"]))


def test_what_changed_meanwhile_has_no_tag_and_is_not_held_without_a_cache() -> None:
    changed = poll('"7"', StubGate(of_7, lambda keys, lag: "c-blue" in keys))

    assert values(leave(HTML, of=plan(hold="response"), request=changed), "ETag") == []
    assert "Grip-Hold" not in dict(leave(HTML, of=plan(hold="response", cdn=None), request=changed))


def test_the_tag_is_that_of_before_if_a_change_comes_while_it_is_made() -> None:
    """Else who has the old body would have the tag of the new one."""
    version = "7"

    def has_changed(keys: Iterable[str], lag: bool) -> bool:
        nonlocal version
        is_first, version = version == "7", "8"
        return not is_first

    changing = poll(gate=StubGate(lambda names: dict.fromkeys(names, version), has_changed))
    left = leave(HTML, of=plan(hold="response"), request=changing)

    assert values(left, "ETag") == ['"7"']


def test_while_a_replica_lags_who_has_the_response_is_held_for_a_moment() -> None:
    lagging = poll('"7"', StubGate(of_7, lambda keys, lag: lag))

    left = leave(HTML, of=plan(hold="response"), request=lagging)

    assert is_kept_out(left)
    assert value(left, "ETag") == '"7"'
    assert value(left, "Grip-Timeout") == "5"


@pytest.mark.parametrize("status", [404, 410])
def test_while_purges_fail_other_statuses_are_kept_no_longer_than_pages(status: int) -> None:
    said = [*HTML, ("Cache-Control", "max-age=600")]
    failing = GET._replace(longest_ttl=5)

    left = leave(said, request=failing, status=status)

    assert value(left, "Surrogate-Control").startswith("max-age=5,")
    assert value(left, "Cache-Control") == "max-age=0, s-maxage=5"
    assert is_kept_out(leave(said, request=GET._replace(longest_ttl=0), status=status))


def test_a_private_304_is_kept_by_nobody() -> None:
    topics = {"c-{name}": {"routes": ["/c/<name>/"], "private": True, "hold": None}}

    assert is_kept_out(leave([("Cache-Control", "max-age=60")], of=plan(topics=topics), status=304))


def test_a_long_poll_without_recovery_has_no_versions_to_miss() -> None:
    left = leave(HTML, of=plan(hold="response", recovery=None), request=POLL)

    assert value(left, "Grip-Channel") == "c-blue"
    assert value(left, "ETag") == '"7"'


# --- what is remembered ---------------------------------------------------------------------------

STILL = POLL._replace(gate=StubGate(of_7, is_still=True), accept="text/event-stream")
Asked = tuple[RequestFacts, int, Headers, Notes]


def asked(
    status: int = 200, headers: Headers = HTML, notes: Notes | None = None, **changed: Any
) -> Asked:
    """A response to be decided about: in one thing or none other than the others."""
    return STILL._replace(**changed), status, headers, notes or Notes()


DIFFERENT = [
    asked(),
    asked(method="HEAD"),
    asked(method="POST"),
    asked(accept="text/html"),
    asked(if_none_match='"7"'),
    asked(accept="text/html", if_none_match='"7"'),
    asked(is_authorized=True),
    asked(mount="/app"),
    asked(longest_ttl=5),
    asked(304),
    asked(404),
    asked(500),
    asked(headers=EVENTS),
    asked(headers=[*HTML, ("Cache-Control", "max-age=3")]),
    asked(headers=[*HTML, ("Cache-Control", "private")]),
    asked(headers=[*HTML, ("Set-Cookie", "a=b")]),
    asked(headers=[*HTML, ("Surrogate-Key", "own")]),
    asked(headers=[*HTML, ("Grip-Hold", "stream")]),
    asked(headers=[*HTML, ("X-Request-Id", "1")]),
    asked(notes=noted(["x"])),
    asked(notes=noted(rows=["x"])),
    asked(notes=noted(declines_hold=True)),
    asked(notes=noted(rows=[], is_unclear=True)),
]


@pytest.mark.parametrize("hold", ["stream", "response", None])
@pytest.mark.parametrize("cdn", ["varnish://cache", None])
def test_what_is_remembered_is_what_would_be_decided(hold: str | None, cdn: str | None) -> None:
    known = plan("/c/blue/", BY_ACCEPT if hold else None, hold=hold, cdn=cdn)

    def anew() -> Plan:
        return Plan(known.shown, known.policy)

    for first, second in permutations(DIFFERENT, 2):
        of = anew()
        of.apply(*first[:3], copy(first[3]))

        decided = anew().apply(*second[:3], copy(second[3]))
        assert of.apply(*second[:3], copy(second[3])) == decided


def test_the_same_is_not_decided_twice() -> None:
    asked = 0

    def has_changed(keys: Iterable[str], lag: bool) -> bool:
        nonlocal asked
        asked += 1
        return False

    of, request = plan(), GET._replace(gate=StubGate(of_7, has_changed, is_still=True))
    first = leave(HTML, of=of, request=request)
    times = asked

    assert leave(HTML, of=of, request=request) == first
    assert times == asked > 0


def test_after_a_change_it_is_decided_anew() -> None:
    of = plan()
    leave(HTML, of=of, request=GET._replace(gate=StubGate(is_still=True), since=1))
    gate = StubGate(has_changed=lambda keys, lag: True, is_still=True)

    assert is_kept_out(leave(HTML, of=of, request=GET._replace(gate=gate, since=2)))


def test_what_changed_while_it_was_made_is_not_left_as_before() -> None:
    of, gate = plan(), StubGate(has_changed=lambda keys, lag: not gate.is_still, is_still=True)
    assert not is_kept_out(leave(HTML, of=of, request=GET._replace(gate=gate)))

    gate.is_still = False

    assert is_kept_out(leave(HTML, of=of, request=GET._replace(gate=gate)))


def test_versions_are_asked_for_once_until_something_changes() -> None:
    of, gate = plan(), StubGate(of_7, is_still=True)
    leave(HTML, of=of, request=GET._replace(gate=gate, since=1, versions={"c-blue": "6"}))

    assert of.versions(gate, 1) == {"c-blue": "6"}
    assert of.versions(gate, 2) == {"c-blue": "7"}


def test_who_is_given_headers_may_change_them() -> None:
    of, request = plan(), GET._replace(gate=StubGate(is_still=True))
    first = leave(HTML, of=of, request=request)
    kept = list(first)
    for _ in range(2):
        leave(HTML, of=of, request=request).append(("Date", "now"))
    first.clear()

    assert leave(HTML, of=of, request=request) == kept


def test_long_wishes_of_strangers_are_not_kept() -> None:
    of = plan()
    for n in range(1000):
        request = GET._replace(gate=StubGate(is_still=True), accept=f"{n}" * 600)
        leave(HTML, of=of, request=request)

    assert of.remembered == 0


def test_only_a_few_responses_of_a_path_are_kept() -> None:
    of = plan()
    for n in range(1000):
        leave([("X-Request-Id", str(n))], of=of, request=GET._replace(gate=StubGate(is_still=True)))

    assert 0 < of.remembered <= MAX_REMEMBERED


def test_lines_that_are_lists_are_decided_each_time() -> None:
    request = GET._replace(gate=StubGate(is_still=True))
    lines: Any = [["Content-Type", "text/html"]]
    of = plan()

    assert leave(lines, of=of, request=request) == leave(lines, of=of, request=request)


def test_headers_of_asgi_leave_as_those_of_wsgi_do() -> None:
    raw = plan().apply_raw(GET, 200, [(b"content-type", b"text/html")], Notes())

    assert raw == [
        (name.lower().encode(), value.encode()) for name, value in leave(HTML, request=GET)
    ]


# --- keys of what was read --------------------------------------------------------------------

TAGGED = {"c-{name}": {"routes": ["/c/<name>/"], "auto_tags": True}}
ROWS_READ = noted(rows=["%row:post:7", "%row:author:%any"])
ROW_KEYS = "%all c-%all %row:post:%all %row:author:%all c-blue %row:post:7 %row:author:%any"


def test_what_was_read_is_a_key_of_the_page_with_all_of_its_table() -> None:
    left = leave(HTML, of=plan(topics=TAGGED), notes=ROWS_READ)

    assert value(left, "Surrogate-Key") == ROW_KEYS


def test_a_page_of_a_topic_with_auto_tags_notes_what_it_reads() -> None:
    assert plan(topics=TAGGED).notes().scopes == Scopes()
    assert plan().notes().scopes is None


def test_scopes_are_those_of_all_topics() -> None:
    topics = {
        "c-{name}": {"routes": ["/c/<name>/"], "auto_tags": {"scopes": ["Author_id"]}},
        "d": {"routes": ["/d"], "auto_tags": {"scopes": ["post.blog_id"]}},
    }

    assert plan(topics=topics).notes().scopes == Scopes(frozenset({"author_id", "post.blog_id"}))


def test_rows_beyond_the_budget_become_any_row_of_their_table() -> None:
    rows = [f"%row:post:{number}" for number in range(100)]
    of = policy(topics=TAGGED, key_budget=200).match("/c/blue/")
    assert of is not None

    left = leave(HTML, of=of, notes=noted(rows=rows))

    assert value(left, "Surrogate-Key") == "%all c-%all %row:post:%all c-blue %row:post:%any"


def test_a_page_that_read_what_nobody_understands_is_not_cached() -> None:
    notes = noted(rows=[], is_unclear=True)

    assert is_kept_out(leave(HTML, of=plan(topics=TAGGED), notes=notes))


def test_a_row_that_changed_meanwhile_keeps_the_page_out_of_the_cache() -> None:
    gate = StubGate(has_changed=lambda keys, lag: "%row:post:%all" in keys)
    request = GET._replace(gate=gate)

    assert is_kept_out(leave(HTML, of=plan(topics=TAGGED), request=request, notes=ROWS_READ))


def test_the_tag_of_a_long_poll_follows_from_the_rows_too() -> None:
    topics = {"c-{name}": {**TAGGED["c-{name}"], "hold": "response"}}

    def tag_when(changed: str) -> str:
        def versions_now(names: Iterable[str]) -> dict[str, str]:
            return {name: "8" if name == changed else "7" for name in names}

        request = POLL._replace(gate=StubGate(versions_now))
        return value(leave(HTML, of=plan(topics=topics), request=request, notes=ROWS_READ), "ETag")

    keys = ROW_KEYS.split()
    assert {key for key in keys if tag_when(key) != tag_when("none")} == {*keys} - {"c-%all"}


# --- other edges ----------------------------------------------------------------------------------

CLOUDFLARE = {"cloudflare": {"zone_id": "z", "token": "t"}}
CLOUDFRONT = {
    "cloudfront": {
        "distribution_id": "E1",
        "access_key_id": "k",
        "secret_access_key": "s",
        "header": "X-Tags",
    }
}
AKAMAI = {"akamai": {"host": "h", "client_token": "c", "client_secret": "s", "access_token": "a"}}
SHARED_FRESH = ("Cache-Control", "max-age=0, s-maxage=600")
CDN_FRESH = ("CDN-Cache-Control", "max-age=600, stale-if-error=86400")
ENCODED = "~25all,c-~25all,c-blue"


@pytest.mark.parametrize(
    ("cdn", "said"),
    [
        (CLOUDFLARE, [SHARED_FRESH, CDN_FRESH, ("Cache-Tag", ENCODED)]),
        (CLOUDFRONT, [SHARED_FRESH, ("X-Tags", ENCODED)]),
        (
            AKAMAI,
            [SHARED_FRESH, ("Edge-Control", "max-age=600"), ("Edge-Cache-Tag", ENCODED)],
        ),
        ("souin://h", [*FRESH, ("Surrogate-Key", "%all, c-%all, c-blue")]),
        (
            ["varnish://h", CLOUDFLARE, CLOUDFRONT],
            [*FRESH, CDN_FRESH, *KEY, ("Cache-Tag", ENCODED), ("X-Tags", ENCODED)],
        ),
    ],
    ids=["Cloudflare", "CloudFront", "Akamai", "Souin", "several"],
)
def test_a_response_says_what_each_edge_reads(cdn: object, said: Headers) -> None:
    assert leave(HTML, of=plan(cdn=cdn)) == [*HTML, *said, *STREAM]


@pytest.mark.parametrize("cdn", [CLOUDFLARE, CLOUDFRONT, AKAMAI], ids=str)
@pytest.mark.parametrize("request_", [GET, SSE], ids=["page", "stream"])
def test_where_an_edge_does_not_heed_vary_what_varies_is_kept_out(
    cdn: object, request_: RequestFacts
) -> None:
    of = plan(cdn=["varnish://h", cdn], accept="text/event-stream")
    notes = of.notes()

    left = leave(HTML, of=of, request=request_, notes=notes)

    assert is_kept_out(left)
    assert notes.kept_out_by == "vary"


def test_what_varies_by_its_encoding_alone_is_cached_everywhere() -> None:
    encoded = [*HTML, ("Vary", "Accept-Encoding")]

    assert not is_kept_out(leave(encoded, of=plan(cdn=CLOUDFLARE)))


@pytest.mark.parametrize("cdn", [CLOUDFLARE, "souin://h"], ids=["Cloudflare", "Souin"])
@pytest.mark.parametrize(
    ("request_", "is_held"),
    [(POLL, False), (POLL_LATE, False), (POLL_AGAIN, True)],
    ids=["has nothing", "has something old", "has it"],
)
def test_where_an_edge_compares_nothing_the_app_answers_each_long_poll(
    cdn: object, request_: RequestFacts, is_held: bool
) -> None:
    left = leave(HTML, of=plan(cdn=cdn, hold="response"), request=request_)

    assert is_kept_out(left)
    assert bool(values(left, "grip-hold")) == is_held


@pytest.mark.parametrize(
    ("cdn", "forbidding"),
    [
        (CLOUDFLARE, [*DO_NOT_STORE, ("CDN-Cache-Control", "no-store")]),
        (AKAMAI, [*DO_NOT_STORE, ("Edge-Control", "no-store")]),
        (CLOUDFRONT, DO_NOT_STORE),
    ],
    ids=["Cloudflare", "Akamai", "CloudFront"],
)
def test_what_is_kept_out_says_so_to_each_edge(cdn: object, forbidding: Headers) -> None:
    said = [
        *HTML,
        ("Cloudflare-CDN-Cache-Control", "max-age=9"),
        ("Edge-Control", "max-age=9"),
        ("Set-Cookie", "a=b"),
    ]

    left = leave(said, of=plan(cdn=cdn), request=HEAD)

    assert left == [*HTML, ("Set-Cookie", "a=b"), *forbidding]


@pytest.mark.parametrize(
    "name", ["CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Edge-Control"]
)
def test_what_the_app_says_to_one_edge_counts_for_all(name: str) -> None:
    shorter = leave([*HTML, (name, "max-age=60")], of=plan(cdn=CLOUDFLARE), request=HEAD)
    forbidden = leave([*HTML, (name, "no-store")], of=plan(cdn=CLOUDFLARE), request=HEAD)

    assert value(shorter, "cache-control") == "max-age=0, s-maxage=60"
    assert values(shorter, "edge-control") == []
    assert is_kept_out(forbidden)


def test_the_keys_that_the_app_sends_itself_count_in_whatever_header() -> None:
    said = [
        *HTML,
        ("Cache-Tag", "Shop,~25row~3ashop~3a7"),
        ("Surrogate-Key", "fastlys"),
        ("Cache-Tag", "b"),
    ]
    notes = plan(cdn=CLOUDFLARE).notes()

    left = leave(said, of=plan(cdn=CLOUDFLARE), notes=notes)

    assert list(notes.named)[-4:] == ["Shop", "%row:shop:7", "fastlys", "b"]
    assert value(left, "cache-tag").endswith("c-blue,~53hop,~25row~3ashop~3a7,fastlys,b")


def test_a_header_of_an_edge_that_is_not_ours_is_left_alone() -> None:
    left = leave([*HTML, ("Cache-Tag", "theirs")], of=plan())

    assert value(left, "cache-tag") == "theirs"
    assert values(left, "surrogate-key") == ["%all c-%all c-blue"]


def test_the_gate_knows_keys_by_their_own_names() -> None:
    asked: list[str] = []

    def has_changed(keys: Iterable[str], lag: bool) -> bool:
        asked.extend(keys)
        return False

    request = HEAD._replace(gate=StubGate(has_changed=has_changed))
    leave(HTML, of=plan(cdn=CLOUDFLARE), request=request)

    assert asked == ["%all", "c-%all", "c-blue"]


def test_more_keys_than_cloudfront_takes_are_named_together() -> None:
    topics = {"c-{name}": {"routes": ["/c/<name>/"]}, "lot-{id}": {"routes": ["/l/<id>"]}}
    notes = plan(cdn=CLOUDFRONT, topics=topics).notes()
    notes.keys.extend(f"lot-{number}" for number in range(60))

    left = leave(HTML, of=plan(cdn=CLOUDFRONT, topics=topics), notes=notes)

    assert value(left, "x-tags") == "~25all,c-~25all,lot-~25all,c-blue,lot-~25any"


def test_more_keys_than_cloudfront_takes_keep_a_page_out_if_they_are_of_no_kind() -> None:
    notes = plan(cdn=CLOUDFRONT).notes()
    notes.keys.extend(f"key{number}" for number in range(60))

    left = leave(HTML, of=plan(cdn=CLOUDFRONT), notes=notes)

    assert is_kept_out(left)
    assert notes.kept_out_by == "budget"


def test_keys_are_cache_groups_if_one_says_so() -> None:
    left = leave(HTML, of=plan(cache_groups=True))

    assert value(left, "cache-groups") == '"~25all", "c-~25all", "c-blue"'
    assert values(leave(HTML), "cache-groups") == []
