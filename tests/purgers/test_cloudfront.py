"""Purging CloudFront: the requests, their signatures, and the answers that acknowledge them."""

from __future__ import annotations

from itertools import count

import pytest

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers.cloudfront import CloudFrontPurger, Credentials, sign

# Of AWS' own test suite, aws-sig-v4-test-suite: all its requests are signed so.
EXAMPLE = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
EXAMPLE_TIME = 1_440_938_160.0  # 20150830T123600Z
SECRET = "hunter2"


def purger(credentials: Credentials | None = None) -> CloudFrontPurger:
    numbers = count(1)
    return CloudFrontPurger(
        "E123ABC",
        credentials or Credentials("AKID", SECRET),
        clock=lambda: EXAMPLE_TIME,
        nonce=lambda: f"nonce-{next(numbers)}",
    )


@pytest.mark.parametrize(
    ("request_", "names", "signature"),
    [
        pytest.param(
            Request("GET", "https://example.amazonaws.com/"),
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            id="get-vanilla",
        ),
        pytest.param(
            Request("POST", "https://example.amazonaws.com/"),
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            id="post-vanilla",
        ),
        pytest.param(
            Request("GET", "https://example.amazonaws.com/?Param2=value2&Param1=value1"),
            "host;x-amz-date",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            id="get-vanilla-query-order-key-case",
        ),
        pytest.param(
            Request("POST", "https://example.amazonaws.com/", {"My-Header1": "value1"}),
            "host;my-header1;x-amz-date",
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
            id="post-header-key-sort",
        ),
        pytest.param(
            Request(
                "POST",
                "https://example.amazonaws.com/",
                {"Content-Type": "application/x-www-form-urlencoded"},
                b"Param1=value1",
            ),
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            id="post-x-www-form-urlencoded",
        ),
    ],
)
def test_a_request_is_signed_as_in_awss_test_suite(
    request_: Request, names: str, signature: str
) -> None:
    headers = sign(request_, EXAMPLE, service="service", region="us-east-1", now=EXAMPLE_TIME)

    scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    assert headers["X-Amz-Date"] == "20150830T123600Z"
    assert headers["Authorization"] == (
        f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"
    )


def test_keys_are_tags_in_an_invalidation() -> None:
    [batch] = purger().batches(["%all", "counter-blue", "Shop:7"])

    assert batch.keys == ("%all", "counter-blue", "Shop:7")
    assert batch.request.method == "POST"
    assert batch.request.url == (
        "https://cloudfront.amazonaws.com/2020-05-31/distribution/E123ABC/invalidation"
    )
    assert batch.request.body == (
        b'<InvalidationBatch xmlns="http://cloudfront.amazonaws.com/doc/2020-05-31/">'
        b"<Paths><Quantity>3</Quantity><Items><Path>#~25all</Path><Path>#counter-blue</Path>"
        b"<Path>#~53hop~3a7</Path></Items></Paths>"
        b"<CallerReference>nonce-1</CallerReference></InvalidationBatch>"
    )


def test_each_request_has_a_reference_of_its_own() -> None:
    # CloudFront takes a second request with the same one for a repetition of the first.
    one = purger()
    bodies = [batch.request.body for _ in range(2) for batch in one.batches(["a"])]

    assert b"<CallerReference>nonce-1<" in bodies[0]
    assert b"<CallerReference>nonce-2<" in bodies[1]


def test_a_sessions_token_is_signed() -> None:
    [batch] = purger(Credentials("AKID", SECRET, "SESSION")).batches(["a"])

    assert batch.request.headers["X-Amz-Security-Token"] == "SESSION"
    assert (
        "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token,"
        in batch.request.headers["Authorization"]
    )


def test_a_request_takes_1000_tags() -> None:
    sizes = [len(batch.keys) for batch in purger().batches(map(str, range(2_001)))]

    assert sizes == [1_000, 1_000, 1]


def test_nothing_shows_the_secret() -> None:
    one = purger(Credentials("AKID", SECRET, SECRET))

    assert SECRET not in repr([one.name, Credentials("AKID", SECRET), *one.batches(["a"])])


def test_created_acknowledges() -> None:
    purger().check(Response(201, {}, b"<Invalidation>"))  # raises nothing


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (Response(200), "answered 200 to an invalidation"),
        (
            Response(400, {}, b"<Error><Code>TooManyInvalidationsInProgress</Code>"),
            "answered 400 to an invalidation (TooManyInvalidationsInProgress)",
        ),
        (
            Response(403, {}, b"<Error><Code>AccessDenied</Code><Message>hunter2"),
            (
                "403: the access key is not valid, or may not cloudfront:CreateInvalidation "
                "(AccessDenied)"
            ),
        ),
        (Response(404, {}, b"<Code>a b</Code>"), "answered 404 to an invalidation"),
        (Response(429), "answered 429 to an invalidation"),
        (Response(503, {}, b"\xff<"), "answered 503 to an invalidation"),
    ],
)
def test_anything_else_is_a_failure(response: Response, message: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        purger().check(response)

    assert str(caught.value) == f"cloudfront E123ABC: {message}"
    assert not caught.value.is_final
