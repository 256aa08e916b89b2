"""Finding the route of a path among many, and telling whether a request is signed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle

import jwt
from gripcontrol import validate_sig
from starlette.routing import compile_path
from werkzeug.routing import Map, Rule

from benchmarks.measure import Effort, Work, in_turns
from benchmarks.results import Curve, Found, at_most_times, result
from grip_edge_middleware.grip import Proxy
from grip_edge_middleware.routing import Matcher, Pattern
from grip_edge_middleware.signature import CACHED_TOKENS, Verifier

ROUTES = (1, 10, 100, 1_000)
KEY = "a-secret-of-at-least-32-random-bytes"


def routes(effort: Effort) -> Iterator[Found]:
    """The last of many parametrised routes, found without a cache."""
    us = {number: in_turns(matching_works(number), effort) for number in ROUTES}
    for number, turns in us.items():
        yield result(
            f"match among {number:,} routes",
            turns.of["ours"],
            "µs",
            base="werkzeug's Map",
            base_values=turns.of["werkzeug"],
            target=at_most_times(0.25),
        )
    for number, turns in us.items():
        yield result(
            f"match among {number:,} routes, beside Starlette",
            turns.of["ours"],
            "µs",
            base="Starlette's regexes in turn",
            base_values=turns.of["starlette"],
        )
    yield result(
        "match among 1,000 routes rather than one",
        us[1_000].of["ours"],
        "µs",
        base="among one",
        base_values=us[1].of["ours"],
        target=at_most_times(1.5),
    )
    for name, said in (("ours", "ours"), ("werkzeug", "werkzeug"), ("starlette", "Starlette")):
        points = [(float(n), result("", turns.of[name], "").value) for n, turns in us.items()]
        yield Curve.of(f"match, {said}", "routes", "µs", points)


def matching_works(number: int) -> dict[str, Work]:
    """Return how each finds the last of so many routes."""
    last = f"/kind{number - 1}/blue/"
    matcher = Matcher((Pattern.parse(f"/kind{n}/<name>/"), n) for n in range(number))
    adapter = Map([Rule(f"/kind{n}/<name>/", endpoint=str(n)) for n in range(number)]).bind("host")
    regexes = [compile_path(f"/kind{n}/{{name}}/")[0] for n in range(number)]

    def in_turn() -> object:
        return next(match for regex in regexes if (match := regex.match(last)))

    assert matcher.match(last) == [(number - 1, {"name": "blue"})]
    return {
        "ours": lambda: matcher.match(last),
        "werkzeug": lambda: adapter.match(last),
        "starlette": in_turn,
    }


def signatures(effort: Effort) -> Iterator[Found]:
    """A token that was seen before, and one that was not."""
    turns = in_turns(signature_works(), effort)
    for name, limit in (("cached", 0.03), ("uncached", 0.6)):
        yield result(
            f"Grip-Sig, {name}",
            turns.of[name],
            "µs",
            base="gripcontrol.validate_sig",
            base_values=turns.of["gripcontrol"],
            target=at_most_times(limit),
        )


def signature_works() -> dict[str, Work]:
    """Return how each verifies a token."""
    verifier = Verifier([Proxy("http://127.0.0.1:5561", verify_key=KEY)])
    now = time.time()
    claims = {"iss": "pushpin", "exp": int(now) + 3_600}
    # More than are kept, so that each is forgotten before it comes again.
    many = [
        jwt.encode({**claims, "n": n}, KEY, algorithm="HS256") for n in range(2 * CACHED_TOKENS)
    ]
    forgotten, others = cycle(many), cycle(many)
    known = many[0]
    assert validate_sig(known, KEY)
    return {
        "cached": lambda: verifier.check(known, now=now),
        "uncached": lambda: verifier.check(next(forgotten), now=now),
        "gripcontrol": lambda: validate_sig(next(others), KEY),
    }
