"""Edges that are neither Varnish nor Fastly: when they are told, and what waits for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grip_edge_middleware.http import Request, Response
from tests.recording import Simulation

CLOUDFLARE = {"cloudflare": {"zone_id": "z", "token": "t"}}
CLOUDFRONT = {
    "cloudfront": {"distribution_id": "d", "access_key_id": "a", "secret_access_key": "s"}
}
AKAMAI = {"akamai": {"host": "h", "client_token": "c", "client_secret": "s", "access_token": "a"}}
TOPICS = {"Lot-{id}": {"routes": ["/lots/<id>/"], "hold": "stream"}}


def simulation(cdn: object, **settings: Any) -> Simulation:
    return Simulation({"topics": TOPICS, "cdn": cdn, **settings})


def kinds(requests: list[Request]) -> list[str]:
    return [request.url.rstrip("/").rpartition("/")[2] for request in requests]


@pytest.mark.parametrize(
    ("cdn", "purge", "settle_s"),
    [
        (CLOUDFLARE, "purge_cache", 0.3),
        (CLOUDFRONT, "invalidation", 5.0),
        (AKAMAI, "production", 5.0),
        ("souin://h", "souin", 0.0),
    ],
    ids=["Cloudflare", "CloudFront", "Akamai", "Souin"],
)
def test_a_publish_waits_until_the_purge_is_everywhere(
    cdn: object, purge: str, settle_s: float
) -> None:
    simulated = simulation(cdn)
    simulated.add("Lot-{id}", id=7)
    began = simulated.clock.now

    simulated.turn()

    assert kinds(simulated.transport.requests) == [purge, "publish"]
    assert simulated.clock.now - began == pytest.approx(settle_s)


def test_a_limit_is_waited_for_and_what_comes_meanwhile_is_merged() -> None:
    simulated = simulation(CLOUDFLARE, purge_deadline=None)
    simulated.transport.script("purge_cache", Response(429, {"retry-after": "37"}))
    began = simulated.clock.now

    for number in range(3):
        simulated.add("Lot-{id}", id=number)
        simulated.turn()
    simulated.run_until_idle()

    first, *others = simulated.transport.to("purge_cache")
    tags = [tag for request in others for tag in json.loads(request.body)["tags"]]
    assert json.loads(first.body) == {"tags": ["~4cot-0", "~4cot-~25any"]}
    assert simulated.clock.now - began >= 37 * 0.8
    assert {"~4cot-0", "~4cot-1", "~4cot-2"} <= set(tags)
    assert kinds(simulated.transport.requests)[:2] == ["purge_cache", "purge_cache"]


def test_an_edge_that_refuses_has_pages_live_for_a_short_time_only() -> None:
    simulated = simulation(CLOUDFLARE)
    simulated.transport.always("purge_cache", Response(403, {}, b'{"success": false}'))
    simulated.add("Lot-{id}", id=7)

    simulated.turn()

    assert not simulated.delivery.can_purge()
    assert "Cache Purge" in str(simulated.delivery.targets.report()["cloudflare z"]["error"])
