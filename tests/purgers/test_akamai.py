"""Purging Akamai: the requests, their signatures, and the answers that acknowledge them."""

from __future__ import annotations

import pytest

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers.akamai import AkamaiPurger, Credentials, sign

SECRET = "hunter2"
# Of the test data that all of Akamai's own EdgeGrid libraries share.
BASE = "https://akaa-baseurl-xxxxxxxxxxx-xxxxxxxxxxxxx.luna.akamaiapis.net"
CLIENT = Credentials(
    client_token="akab-client-token-xxx-xxxxxxxxxxxxxxxx",
    client_secret="xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx=",
    access_token="akab-access-token-xxx-xxxxxxxxxxxxxxxx",
)
TIME = 1_395_430_461.0  # 20140321T19:34:21+0000
NONCE = "nonce-xx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"


def purger(*, soft: bool = True) -> AkamaiPurger:
    return AkamaiPurger(
        "akab-h.luna.akamaiapis.net",
        Credentials("CLIENT", SECRET, "ACCESS"),
        soft=soft,
        clock=lambda: TIME,
        nonce=lambda: NONCE,
    )


@pytest.mark.parametrize(
    ("request_", "signature"),
    [
        pytest.param(
            Request("GET", f"{BASE}/"),
            "tL+y4hxyHxgWVD30X3pWnGKHcPzmrIF+LThiAOhMxYU=",
            id="simple GET",
        ),
        pytest.param(
            Request("GET", f"{BASE}/testapi/v1/t1?p1=1&p2=2"),
            "hKDH1UlnQySSHjvIcZpDMbQHihTQ0XyVAKZaApabdeA=",
            id="GET with querystring",
        ),
        pytest.param(
            Request("POST", f"{BASE}/testapi/v1/t3", {}, b"datadatadatadatadatadatadatadata"),
            "hXm4iCxtpN22m4cbZb4lVLW5rhX8Ca82vCFqXzSTPe4=",
            id="POST inside limit",
        ),
        pytest.param(
            Request("POST", f"{BASE}/testapi/v1/t3", {}, b"d" * 2_049),
            "6Q6PiTipLae6n4GsSIDTCJ54bEbHUBp+4MUXrbQCBoY=",
            id="POST too large",
        ),
        pytest.param(
            Request("POST", f"{BASE}/testapi/v1/t3", {}, b"d" * 2_048),
            "6Q6PiTipLae6n4GsSIDTCJ54bEbHUBp+4MUXrbQCBoY=",
            id="POST length equals max_body",
        ),
        pytest.param(
            Request("POST", f"{BASE}/testapi/v1/t6", {}, b""),
            "1gEDxeQGD5GovIkJJGcBaKnZ+VaPtrc4qBUHixjsPCQ=",
            id="POST empty body",
        ),
        pytest.param(
            Request("PUT", f"{BASE}/testapi/v1/t6", {}, b"P" * 31),
            "GNBWEYSEWOLtu+7dD52da2C39aX/Jchpon3K/AmBqBU=",
            id="PUT test",
        ),
    ],
)
def test_a_request_is_signed_as_in_edgegrids_test_data(request_: Request, signature: str) -> None:
    said = sign(request_, CLIENT, now=TIME, nonce=NONCE, max_bytes=2_048)

    assert said == (
        "EG1-HMAC-SHA256 client_token=akab-client-token-xxx-xxxxxxxxxxxxxxxx;"
        "access_token=akab-access-token-xxx-xxxxxxxxxxxxxxxx;"
        f"timestamp=20140321T19:34:21+0000;nonce={NONCE};signature={signature}"
    )


@pytest.mark.parametrize(("soft", "action"), [(True, "invalidate"), (False, "delete")])
def test_keys_are_objects_of_one_json_body(*, soft: bool, action: str) -> None:
    [batch] = purger(soft=soft).batches(["%all", "counter-blue", "Shop:7"])

    assert batch.keys == ("%all", "counter-blue", "Shop:7")
    assert batch.request.method == "POST"
    assert batch.request.url == (
        f"https://akab-h.luna.akamaiapis.net/ccu/v3/{action}/tag/production"
    )
    assert batch.request.headers["Content-Type"] == "application/json"
    assert batch.request.body == b'{"objects": ["~25all", "counter-blue", "~53hop~3a7"]}'


def test_a_request_takes_300_tags_and_never_50000_bytes() -> None:
    batches = list(purger().batches(f"{number:0200}" for number in range(601)))

    assert [len(batch.keys) for batch in batches] == [300, 300, 1]
    assert max(len(batch.request.body) for batch in batches) < 50_000


def test_nothing_shows_the_secret() -> None:
    credentials = Credentials("CLIENT", SECRET, "ACCESS")

    assert SECRET not in repr([purger().name, credentials, *purger().batches(["a"])])


def test_created_acknowledges() -> None:
    purger().check(Response(201, {}, b'{"httpStatus": 201}'))  # raises nothing


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (Response(200), "answered 200 to a purge"),
        (Response(400), "answered 400 to a purge"),
        (Response(401), "401: the API client's credentials are not valid"),
        (Response(403), "403: the API client may not use CCU APIs"),
        (Response(413), "answered 413 to a purge"),
        (Response(429), "answered 429 to a purge"),
        (Response(507), "answered 507 to a purge"),
    ],
)
def test_anything_else_is_a_failure(response: Response, message: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        purger().check(response)

    assert str(caught.value) == f"akamai production: {message}"
    assert not caught.value.is_final
