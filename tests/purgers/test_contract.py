"""What every Purger promises, whatever CDN it is for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.dialects import AKAMAI, CLOUDFLARE, CLOUDFRONT, VARNISH
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers import Purger
from grip_edge_middleware.purgers.akamai import AkamaiPurger
from grip_edge_middleware.purgers.akamai import Credentials as ApiClient
from grip_edge_middleware.purgers.cloudflare import CloudflarePurger
from grip_edge_middleware.purgers.cloudfront import CloudFrontPurger
from grip_edge_middleware.purgers.cloudfront import Credentials as AccessKey
from grip_edge_middleware.purgers.fastly import FastlyPurger
from grip_edge_middleware.purgers.generic import GenericPurger
from grip_edge_middleware.purgers.souin import SouinPurger
from grip_edge_middleware.purgers.varnish import VarnishPurger
from grip_edge_middleware.topics import MAX_NAME, escape_key

SECRET = "hunter2"


@dataclass(frozen=True)
class Case:
    """A purger, what its CDN reads in a request, and what that CDN takes."""

    purger: Purger
    read: Callable[[Request], list[str]]
    is_within_limits: Callable[[Request], bool]
    acknowledgement: Response
    spell: Callable[[str], str] = str
    """How its CDN is told of a key."""


def fastly_keys(request: Request) -> list[str]:
    keys: list[str] = json.loads(request.body)["surrogate_keys"]
    return keys


def varnish_keys(request: Request) -> list[str]:
    # xkey splits at spaces and at commas.
    return request.headers["xkey-purge"].replace(",", " ").split(" ")


def cloudfront_keys(request: Request) -> list[str]:
    invalidation = ElementTree.fromstring(request.body)
    namespace = {"": "http://cloudfront.amazonaws.com/doc/2020-05-31/"}
    quantity = invalidation.findtext("Paths/Quantity", namespaces=namespace)
    paths = [path.text or "" for path in invalidation.findall("Paths/Items/Path", namespace)]
    assert quantity == str(len(paths))
    return [path.removeprefix("#") for path in paths]


CASES = [
    Case(
        FastlyPurger("SidAbc", SECRET, soft=soft),
        fastly_keys,
        lambda request: len(fastly_keys(request)) <= 256,
        Response(200, {}, b"{}"),
    )
    for soft in (True, False)
] + [
    Case(
        VarnishPurger("http://localhost:6081", soft=soft),
        varnish_keys,
        lambda request: len(request.headers["xkey-purge"]) <= 7_500,
        Response(200, {"grip-edge-purged": "0"}),
    )
    for soft in (True, False)
]
CASES += [
    Case(
        SouinPurger("http://localhost:2019"),
        lambda request: request.headers["Surrogate-Key"].split(", "),
        lambda request: len(request.headers["Surrogate-Key"]) <= 7_500,
        Response(204),
    ),
    Case(
        CloudflarePurger("Zone1", SECRET),
        lambda request: list(json.loads(request.body)["tags"]),
        lambda request: len(json.loads(request.body)["tags"]) <= 100,
        Response(200, {}, b'{"success": true}'),
        CLOUDFLARE.spell,
    ),
    Case(
        CloudFrontPurger(
            "E1",
            AccessKey("AKID", SECRET, SECRET),
            clock=lambda: 0.0,
            nonce=lambda: "n",
        ),
        cloudfront_keys,
        lambda request: len(cloudfront_keys(request)) <= 1_000,
        Response(201),
        CLOUDFRONT.spell,
    ),
    Case(
        AkamaiPurger(
            "h", ApiClient("CLIENT", SECRET, "ACCESS"), clock=lambda: 0.0, nonce=lambda: "n"
        ),
        lambda request: list(json.loads(request.body)["objects"]),
        lambda request: len(request.body) <= 50_000,
        Response(201),
        AKAMAI.spell,
    ),
    Case(
        GenericPurger(
            "http://h/purge",
            dialect=replace(VARNISH, purge_keys=7),
            headers={"X-Token": SECRET},
        ),
        lambda request: request.headers["Surrogate-Key"].split(" "),
        lambda request: len(request.headers["Surrogate-Key"].split(" ")) <= 7,
        Response(204),
    ),
]
every_purger = pytest.mark.parametrize("case", CASES, ids=lambda case: case.purger.name)

KEYS = st.one_of(
    st.text(min_size=1).map(escape_key),
    st.integers(1, MAX_NAME).map(lambda length: "k" * length),
)
MANY = st.tuples(st.lists(KEYS, max_size=40), st.integers(1, 30)).map(lambda t: t[0] * t[1])


@every_purger
@given(keys=MANY)
def test_every_key_is_in_exactly_one_request_and_in_order(case: Case, keys: list[str]) -> None:
    batches = list(case.purger.batches(keys))

    assert [key for batch in batches for key in batch.keys] == keys
    assert [key for batch in batches for key in case.read(batch.request)] == [
        case.spell(key) for key in keys
    ]


@every_purger
@given(keys=MANY)
def test_every_request_keeps_to_the_limits(case: Case, keys: list[str]) -> None:
    batches = list(case.purger.batches(keys))

    assert all(case.is_within_limits(batch.request) for batch in batches)
    assert all(batch.keys for batch in batches)


@every_purger
def test_no_keys_are_no_request(case: Case) -> None:
    assert list(case.purger.batches([])) == []


@every_purger
def test_keys_are_asked_for_as_they_are_needed(case: Case) -> None:
    def endless() -> Iterator[str]:
        number = 0
        while True:
            yield f"key-{number}"
            number += 1

    assert next(iter(case.purger.batches(endless()))).keys[0] == "key-0"


@every_purger
@given(keys=st.lists(KEYS, min_size=1, max_size=5))
def test_a_request_fits_into_http(case: Case, keys: list[str]) -> None:
    for batch in case.purger.batches(keys):
        assert batch.request.url.startswith("http")
        for name, value in batch.request.headers.items():
            assert name.isascii()
            assert value.isascii()
            assert value.isprintable()


@every_purger
def test_the_same_keys_make_the_same_requests(case: Case) -> None:
    keys = [f"key-{number}" for number in range(1_000)]

    assert list(case.purger.batches(keys)) == list(case.purger.batches(keys))


@every_purger
def test_its_own_acknowledgement_is_accepted(case: Case) -> None:
    case.purger.check(case.acknowledgement)  # raises nothing


@every_purger
@given(status=st.integers(100, 599).filter(lambda status: not 200 <= status < 300))
def test_no_failure_is_an_acknowledgement(case: Case, status: int) -> None:
    answer = Response(status, case.acknowledgement.headers, case.acknowledgement.body)

    with pytest.raises(DeliveryError) as caught:
        case.purger.check(answer)
    assert caught.value.target == case.purger.name


@every_purger
@given(body=st.binary(max_size=64))
def test_garbage_is_an_acknowledgement_or_a_delivery_error(case: Case, body: bytes) -> None:
    # Who says more in a body than in a status is believed only if that is a JSON object.
    with suppress(DeliveryError):
        case.purger.check(Response(case.acknowledgement.status, {}, body))
        assert not case.acknowledgement.body or isinstance(json.loads(body), dict)


@every_purger
def test_its_name_and_its_requests_show_no_secret(case: Case) -> None:
    shown = f"{case.purger.name} {list(case.purger.batches(['a']))!r}"

    assert SECRET not in shown
    assert case.purger.settle_s >= 0
