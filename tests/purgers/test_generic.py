"""Purging an edge that the settings describe."""

from __future__ import annotations

from typing import Any

import pytest

from grip_edge_middleware.edge import make_purger
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers import Purger
from grip_edge_middleware.settings import Settings

SECRET = "hunter2"


def purger(**options: Any) -> Purger:
    cdn = {"generic": {"url": "https://cdn.example/purge?t=hunter2", **options}}
    settings = Settings.parse({"topics": {"t": {}}, "cdn": cdn}, {})
    return make_purger(settings.cdns[0], "")


@pytest.mark.parametrize(
    ("options", "request_"),
    [
        (
            {},
            Request("PURGE", "https://cdn.example/purge?t=hunter2", {"Surrogate-Key": "a B:c"}),
        ),
        (
            {"method": "BAN", "name": "xkey", "separator": ",", "headers": {"X-Token": "s"}},
            Request(
                "BAN",
                "https://cdn.example/purge?t=hunter2",
                {"X-Token": "s", "xkey": "a,B:c"},
            ),
        ),
        (
            {"keys_in": "json", "name": "tags", "body": {"site": "x"}},
            Request(
                "POST",
                "https://cdn.example/purge?t=hunter2",
                {"Content-Type": "application/json"},
                b'{"site": "x", "tags": ["a", "B:c"]}',
            ),
        ),
        (
            {"keys_in": "json", "name": "CacheTag", "separator": ",", "method": "PUT"},
            Request(
                "PUT",
                "https://cdn.example/purge?t=hunter2",
                {"Content-Type": "application/json"},
                b'{"CacheTag": "a,B:c"}',
            ),
        ),
    ],
    ids=["default", "header", "list in JSON", "text in JSON"],
)
def test_the_request_is_as_the_settings_say(options: dict[str, Any], request_: Request) -> None:
    [batch] = purger(**options).batches(["a", "B:c"])

    assert batch.request == request_
    assert batch.keys == ("a", "B:c")


def test_a_request_takes_as_many_keys_as_the_settings_say() -> None:
    batches = purger(batch=2, settle=1.5).batches(["a", "b", "c"])

    assert [batch.keys for batch in batches] == [("a", "b"), ("c",)]
    assert purger(settle=1.5).settle_s == 1.5


@pytest.mark.parametrize(("options", "status"), [({}, 200), ({}, 204), ({"ok": [202]}, 202)])
def test_what_the_settings_name_acknowledges(options: dict[str, Any], status: int) -> None:
    purger(**options).check(Response(status))  # raises nothing


def test_anything_else_is_a_failure() -> None:
    with pytest.raises(DeliveryError) as caught:
        purger(ok=[202]).check(Response(200))

    assert str(caught.value) == "generic cdn.example: answered 200 to a purge"


def test_neither_its_name_nor_its_settings_show_a_secret() -> None:
    options = {"headers": {"Authorization": SECRET}, "keys_in": "json", "name": "n"}
    cdn = {"generic": {"url": "https://h/", "body": {"key": SECRET}, **options}}
    settings = Settings.parse({"topics": {"t": {}}, "cdn": cdn}, {})

    assert SECRET not in repr(settings)
    assert SECRET not in purger(**options).name
