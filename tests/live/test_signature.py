"""What the real Pushpin signs, as the app receives it through the real Varnish."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from servers import wait_until_reached, wsgi_server

from grip_edge_middleware.errors import SignatureError
from grip_edge_middleware.grip import Proxy
from grip_edge_middleware.signature import LEEWAY_S, Verifier

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from launch import Edge

pytestmark = [pytest.mark.live, pytest.mark.both_edges]


@pytest.fixture
def token(edge: Edge) -> str:
    tokens: list[str] = []

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        tokens.append(environ.get("HTTP_GRIP_SIG", ""))
        start("200 OK", [("Content-Length", "0"), ("Cache-Control", "no-store")])
        return []

    with wsgi_server(app, edge.app_port):
        wait_until_reached(edge.url)
    return tokens[-1]


def test_pushpins_signature_is_good_for_an_hour(edge: Edge, token: str) -> None:
    now = time.time()
    verifier = Verifier([Proxy(edge.control_url, verify_iss="pushpin", verify_key=edge.verify_key)])
    verifier.check(token, now=now)

    verifier.check(token, now=now + 3600)
    with pytest.raises(SignatureError, match="expired"):
        verifier.check(token, now=now + 3600 + LEEWAY_S + 1)


@pytest.mark.parametrize(
    ("iss", "key", "reason"),
    [
        ("pushpin", "another secret of thirty-two bytes", "signed with another key"),
        ("fastly:SidAbc", None, "its iss is not fastly:SidAbc"),
    ],
)
def test_pushpins_signature_is_good_for_its_own_key_and_name_only(
    edge: Edge, token: str, iss: str, key: str | None, reason: str
) -> None:
    proxy = Proxy(edge.control_url, verify_iss=iss, verify_key=key or edge.verify_key)

    with pytest.raises(SignatureError, match=reason):
        Verifier([proxy]).check(token, now=time.time())
