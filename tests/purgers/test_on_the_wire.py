"""Each purger through the real HTTP client, against a server that answers as its CDN may."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from grip_edge_middleware.dialects import VARNISH
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request
from grip_edge_middleware.purgers import Purger
from grip_edge_middleware.purgers.akamai import AkamaiPurger
from grip_edge_middleware.purgers.akamai import Credentials as ApiClient
from grip_edge_middleware.purgers.cloudflare import CloudflarePurger
from grip_edge_middleware.purgers.cloudfront import CloudFrontPurger, sign
from grip_edge_middleware.purgers.cloudfront import Credentials as AccessKey
from grip_edge_middleware.purgers.generic import GenericPurger
from grip_edge_middleware.purgers.souin import SouinPurger
from grip_edge_middleware.transport import HttpTransport, retry_after_s
from tests.recording import Answer, Recorded, RecordingServer

TIME = 1_440_938_160.0
KEY = AccessKey("AKID", "hunter2")
CLIENT = ApiClient("CLIENT", "hunter2", "ACCESS")

MAKERS: dict[str, Callable[[RecordingServer], Purger]] = {
    "cloudflare": lambda server: CloudflarePurger("z1", "hunter2", url=server.url),
    "cloudfront": lambda server: CloudFrontPurger(
        "E1", KEY, url=server.url, clock=lambda: TIME, nonce=lambda: "n"
    ),
    "akamai": lambda server: AkamaiPurger(
        f"127.0.0.1:{server.port}",
        CLIENT,
        scheme="http",
        clock=lambda: TIME,
        nonce=lambda: "n",
    ),
    "souin": lambda server: SouinPurger(server.url),
    "generic": lambda server: GenericPurger(f"{server.url}/purge", dialect=VARNISH),
}
OK = {
    "cloudflare": Answer(200, {}, b'{"success": true}'),
    "cloudfront": Answer(201),
    "akamai": Answer(201),
    "souin": Answer(204),
    "generic": Answer(204),
}
every_cdn = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    transport = HttpTransport(timeout_s=5.0)
    yield transport
    transport.close()


def purge(purger: Purger, transport: HttpTransport, *keys: str) -> None:
    for batch in purger.batches(keys):
        purger.check(transport.send(batch.request))


@every_cdn
def test_a_purge_arrives_as_it_was_made(
    name: str, server: RecordingServer, transport: HttpTransport
) -> None:
    server.respond = lambda _: OK[name]
    purger = MAKERS[name](server)
    [batch] = purger.batches(["%all", "Shop:7"])

    purge(purger, transport, "%all", "Shop:7")

    [seen] = server.requests
    assert seen.method == batch.request.method
    assert seen.body == batch.request.body
    assert batch.request.url.endswith(seen.path)
    for header, value in batch.request.headers.items():
        assert seen.headers[header.lower()] == value


def test_what_arrives_at_cloudfront_has_the_signature_of_what_was_sent(
    server: RecordingServer, transport: HttpTransport
) -> None:
    server.respond = lambda _: OK["cloudfront"]

    purge(MAKERS["cloudfront"](server), transport, "a")

    [seen] = server.requests
    url = f"http://{seen.headers['host']}{seen.path}"
    said = {"Content-Type": seen.headers["content-type"]}
    expected = sign(
        Request(seen.method, url, said, seen.body),
        KEY,
        service="cloudfront",
        region="us-east-1",
        now=TIME,
    )
    assert seen.headers["authorization"] == expected["Authorization"]


@every_cdn
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503])
def test_a_refusal_is_an_error_that_is_tried_again(
    name: str, status: int, server: RecordingServer, transport: HttpTransport
) -> None:
    server.respond = lambda _: Answer(status, {}, OK[name].body)

    with pytest.raises(DeliveryError) as caught:
        purge(MAKERS[name](server), transport, "a")

    assert str(status) in caught.value.reason
    assert "hunter2" not in str(caught.value)
    assert not caught.value.is_final


@every_cdn
def test_a_limit_says_when_to_try_again(
    name: str, server: RecordingServer, transport: HttpTransport
) -> None:
    server.respond = lambda _: Answer(429, {"Retry-After": "37"})
    [batch] = MAKERS[name](server).batches(["a"])

    assert retry_after_s(transport.send(batch.request)) == 37.0


NO_ANSWERS = {
    "closed": Answer(closes=True),
    "no HTTP": Answer(raw=b"HTTP/1.1 ???\r\n\r\n"),
    "garbage": Answer(200, {}, b"\x00" * 9),
    "redirect": Answer(302, {"Location": "/elsewhere"}),
}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        pytest.param(name, answer, id=f"{name}-{kind}")
        for name in MAKERS
        for kind, answer in NO_ANSWERS.items()
        # Of that one, its status is all that is known.
        if (name, kind) != ("generic", "garbage")
    ],
)
def test_what_is_no_answer_of_its_acknowledges_nothing(
    name: str, answer: Answer, server: RecordingServer, transport: HttpTransport
) -> None:
    server.respond = lambda _: answer

    with pytest.raises(DeliveryError):
        purge(MAKERS[name](server), transport, "a")

    assert {request.path for request in server.requests} != {"/elsewhere"}


@every_cdn
def test_who_says_nothing_is_not_waited_for(name: str, server: RecordingServer) -> None:
    server.respond = lambda _: Answer(hangs=True)
    transport = HttpTransport(timeout_s=0.2)

    with pytest.raises(DeliveryError) as caught:
        purge(MAKERS[name](server), transport, "a")

    assert "no answer" in caught.value.reason
    transport.close()


def test_a_cloudflare_that_refuses_one_request_is_asked_for_no_more(
    server: RecordingServer, transport: HttpTransport
) -> None:
    def respond(request: Recorded) -> Answer:
        is_first = "key-0" in json.loads(request.body)["tags"]
        return OK["cloudflare"] if is_first else Answer(429)

    server.respond = respond
    with pytest.raises(DeliveryError):
        purge(MAKERS["cloudflare"](server), transport, *(f"key-{n}" for n in range(250)))

    assert len(server.requests) == 2
