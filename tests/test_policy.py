"""The policy: with which headers a response leaves."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.grip import etag
from grip_edge_middleware.notes import Notes
from grip_edge_middleware.policy import Plan, Policy, RequestFacts
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.types import Headers

GET = RequestFacts("GET")
HEAD = RequestFacts("HEAD")
SSE = RequestFacts("GET", "text/event-stream")
AUTHORIZED = RequestFacts("GET", is_authorized=True)

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


def poll(has: str = "", **changed: Any) -> RequestFacts:
    """A request of who has a response with that tag; all topics have version 7."""

    def versions(names: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(names, "7")

    facts = RequestFacts("GET", if_none_match=has, versions_now=versions)
    return replace(facts, versions=versions(["a", "b", "c-blue"]), **changed)


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
        and not values(headers, "CDN-Cache-Control")
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

    assert leave(headers, request=RequestFacts(method)) is headers


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
    left = leave(HTML, of=plan(topics=BY_ACCEPT, hold=None), request=poll(accept=accept))

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
    streamed = leave(HTML, of=of, request=replace(SSE, versions=versions))
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
    left = leave(headers, of=plan(topics=topics), notes=Notes(keys=["tag", "all"]))

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
        notes=Notes(keys=["c-red", "e"]),
    )

    assert value(left, "Surrogate-Key") == ("%all c-%all e d-%all:%all c-blue c-red d-1:2 own")


def test_keys_that_just_fit_are_all_sent() -> None:
    notes = Notes(keys=["c-1", "c-2"])

    assert value(leave(HTML, of=plan(key_budget=26), notes=notes), "Surrogate-Key") == (
        "%all c-%all c-blue c-1 c-2"
    )


def test_keys_over_budget_become_the_key_of_their_kind() -> None:
    notes = Notes(keys=["c-1", "stays", "c-2"])
    left = leave(HTML, of=plan(key_budget=31), notes=notes)

    assert left == [*HTML, *FRESH, ("Surrogate-Key", "%all c-%all c-%any stays"), *STREAM]


def test_a_page_of_shortened_names_is_kept_out() -> None:
    # A shortened name does not say of which kind it is, so it cannot be rolled up.
    names = [plan(f"/c/{'é' * 100}{i}/").shown[0].topic.name for i in range(30)]

    assert is_kept_out(leave(HTML, notes=Notes(keys=names)))


def test_keys_that_do_not_fit_at_all_keep_the_response_out() -> None:
    notes = Notes(keys=["x" * 60])
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
            leave(HTML, of=over, notes=Notes(keys=["x" * 9]))

    [warning] = caplog.messages
    assert warning.startswith("/over-budget-once: the surrogate keys exceed key_budget (5 bytes)")


@given(st.lists(st.text("ab-c%:", min_size=1, max_size=12), max_size=30), st.integers(1, 200))
def test_a_stored_response_has_all_its_keys(tags: list[str], budget: int) -> None:
    of = plan(key_budget=budget)
    left = leave(HTML, of=of, notes=Notes(keys=tags))

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
    left = leave(HTML, request=RequestFacts("GET", longest_ttl=5))

    assert value(left, "Cache-Control") == "max-age=0, s-maxage=5"
    # The app's failure alone shows it later, as it would show what was purged softly.
    assert value(left, "Surrogate-Control") == "max-age=5, stale-if-error=86400"


def test_while_purges_fail_a_shorter_lifetime_stays() -> None:
    left = leave(HTML, of=plan(edge_ttl=3), request=RequestFacts("GET", longest_ttl=5))

    assert value(left, "Surrogate-Control").startswith("max-age=3,")


def test_a_page_that_may_not_be_kept_while_purges_fail_is_kept_out() -> None:
    assert is_kept_out(leave(HTML, request=RequestFacts("GET", longest_ttl=0)))


# --- 7. GRIP --------------------------------------------------------------------------------------


def test_a_view_may_decline_the_hold() -> None:
    assert leave(HTML, notes=Notes(declines_hold=True)) == HTML + FRESH + KEY


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
        value(leave(headers, of=of, request=POLL, notes=Notes(keys=keys)), "ETag")
        for headers, keys in ((HTML, []), (HTML, ["c-blue"]), ([("Surrogate-Key", "c-red")], []))
    ]

    assert tags[0] == etag(["7", "7"])
    assert tags[1] == tags[2] == etag(["7", "7", "7"])
    assert leave(HTML, of=of, request=POLL, notes=Notes(keys=["no-topic"]))


def test_what_changed_meanwhile_has_no_tag_and_is_not_held_without_a_cache() -> None:
    changed = poll('"7"', has_changed=lambda keys, lag=True: "c-blue" in keys)

    assert values(leave(HTML, of=plan(hold="response"), request=changed), "ETag") == []
    assert "Grip-Hold" not in dict(leave(HTML, of=plan(hold="response", cdn=None), request=changed))


def test_the_tag_is_that_of_before_if_a_change_comes_while_it_is_made() -> None:
    """Else who has the old body would have the tag of the new one."""
    version = "7"

    def has_changed(keys: Iterable[str], *, lag: bool = True) -> bool:
        nonlocal version
        is_first, version = version == "7", "8"
        return not is_first

    changing = poll(
        versions_now=lambda names: dict.fromkeys(names, version), has_changed=has_changed
    )
    left = leave(HTML, of=plan(hold="response"), request=changing)

    assert values(left, "ETag") == ['"7"']


def test_while_a_replica_lags_who_has_the_response_is_held_for_a_moment() -> None:
    lagging = poll('"7"', has_changed=lambda keys, lag=True: lag)

    left = leave(HTML, of=plan(hold="response"), request=lagging)

    assert is_kept_out(left)
    assert value(left, "ETag") == '"7"'
    assert value(left, "Grip-Timeout") == "5"


@pytest.mark.parametrize("status", [404, 410])
def test_while_purges_fail_other_statuses_are_kept_no_longer_than_pages(status: int) -> None:
    said = [*HTML, ("Cache-Control", "max-age=600")]
    failing = replace(GET, longest_ttl=5)

    left = leave(said, request=failing, status=status)

    assert value(left, "Surrogate-Control").startswith("max-age=5,")
    assert value(left, "Cache-Control") == "max-age=0, s-maxage=5"
    assert is_kept_out(leave(said, request=replace(GET, longest_ttl=0), status=status))


def test_a_private_304_is_kept_by_nobody() -> None:
    topics = {"c-{name}": {"routes": ["/c/<name>/"], "private": True, "hold": None}}

    assert is_kept_out(leave([("Cache-Control", "max-age=60")], of=plan(topics=topics), status=304))


def test_a_long_poll_without_recovery_has_no_versions_to_miss() -> None:
    left = leave(HTML, of=plan(hold="response", recovery=None), request=POLL)

    assert value(left, "Grip-Channel") == "c-blue"
    assert value(left, "ETag") == '"7"'


def test_nothing_of_a_request_is_kept_on_the_plan() -> None:
    of = plan(topics=BY_ACCEPT, hold=None)
    first = leave(HTML, of=of, request=POLL)
    leave([("Set-Cookie", "a=b")], of=of, request=SSE, notes=Notes(keys=["x"], declines_hold=True))

    assert leave(HTML, of=of, request=POLL) == first


# --- keys of what was read --------------------------------------------------------------------

TAGGED = {"c-{name}": {"routes": ["/c/<name>/"], "auto_tags": True}}
ROWS_READ = Notes(scopes=Scopes(), rows={"%row:post:7": None, "%row:author:%any": None})
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
    rows = {f"%row:post:{number}": None for number in range(100)}
    of = policy(topics=TAGGED, key_budget=200).match("/c/blue/")
    assert of is not None

    left = leave(HTML, of=of, notes=Notes(scopes=Scopes(), rows=rows))

    assert value(left, "Surrogate-Key") == "%all c-%all %row:post:%all c-blue %row:post:%any"


def test_a_page_that_read_what_nobody_understands_is_not_cached() -> None:
    notes = Notes(scopes=Scopes(), is_unclear=True)

    assert is_kept_out(leave(HTML, of=plan(topics=TAGGED), notes=notes))


def test_a_row_that_changed_meanwhile_keeps_the_page_out_of_the_cache() -> None:
    def has_changed(keys: Iterable[str], *, lag: bool = True) -> bool:
        return "%row:post:%all" in keys

    request = replace(GET, has_changed=has_changed)

    assert is_kept_out(leave(HTML, of=plan(topics=TAGGED), request=request, notes=ROWS_READ))


def test_the_tag_of_a_long_poll_follows_from_the_rows_too() -> None:
    topics = {"c-{name}": {**TAGGED["c-{name}"], "hold": "response"}}

    def tag_when(changed: str) -> str:
        def versions_now(names: Iterable[str]) -> dict[str, str]:
            return {name: "8" if name == changed else "7" for name in names}

        request = replace(POLL, versions_now=versions_now)
        return value(leave(HTML, of=plan(topics=topics), request=request, notes=ROWS_READ), "ETag")

    keys = ROW_KEYS.split()
    assert {key for key in keys if tag_when(key) != tag_when("none")} == {*keys} - {"c-%all"}
