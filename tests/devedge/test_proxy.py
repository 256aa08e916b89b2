"""The development GRIP proxy in front of an app that is only answers: `tests/live/` has more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from grip_edge_middleware.devedge import proxy as module
from grip_edge_middleware.devedge.exchange import Answer, Asked, OriginFailed, whole_body
from grip_edge_middleware.devedge.instruct import Item
from grip_edge_middleware.devedge.proxy import GripProxy

KEY = "k" * 32
PAGE = Asked("GET", "/page", [("host", "localhost"), ("grip-sig", "forged")])
STREAM = [("grip-hold", "stream"), ("grip-channel", "c; prev-id=1")]
LINK = ("grip-link", "</next>; rel=next; timeout=600")
POLL = [("grip-hold", "response"), ("grip-channel", "c; prev-id=1; filter=require-sub")]


@dataclass
class App:
    """Answers from a table."""

    answers: dict[str, list[Answer]]
    asked: list[Asked] = field(default_factory=list)

    async def __call__(self, asked: Asked, /) -> Answer:
        self.asked.append(asked)
        answers = self.answers.get(asked.path, [])
        if not answers:
            raise OriginFailed("refused")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    @property
    def lasts(self) -> list[str]:
        return [asked.says("grip-last") for asked in self.asked if asked.path == "/next"]


@pytest.fixture(autouse=True)
def no_first_subscribers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked for what nobody has missed, but where a test says so."""
    monkeypatch.setattr(module, "FIRST_SUBSCRIBER_S", 3600.0)


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


async def opened(proxy: GripProxy) -> AsyncGenerator[bytes, None]:
    """A stream whose first body has arrived."""
    body = (await proxy(PAGE)).body
    assert not isinstance(body, bytes)
    assert await anext(body) == b"one"
    return body


def item(content: str, id_: str, prev_id: str | None, **format_: object) -> Item:
    return Item("c", {"http-stream": {"content": content, **format_}}, id_, prev_id)


def poll_item(id_: str, prev_id: str, **more: Any) -> Item:
    return Item("c", {"http-response": {"body": "two"}}, id_, prev_id, **more)


def test_a_stream_goes_on_with_what_is_published() -> None:
    async def scenario() -> None:
        app = App({"/page": [Answer(200, [*STREAM, LINK, ("content-length", "3")], b"one")]})
        proxy = GripProxy(app, sig_key=KEY)
        answer = await proxy(PAGE)
        assert answer.headers == []
        assert app.asked[0].says("grip-sig").count(".") == 2
        body = await opened(proxy)
        proxy.publish([item("two", "2", "1"), item("", "2.c", "2"), item("three", "3", "2.c")])
        proxy.publish([item("three", "3", "2.c")])
        assert [await anext(body), await anext(body)] == [b"two", b"three"]
        proxy.publish([item("", "4", "3", action="close")])
        assert await anext(body, None) is None
        assert not proxy.is_watched("c")

    play(scenario())


def test_who_missed_an_item_is_given_what_the_next_link_says() -> None:
    async def scenario() -> None:
        caught_up = [("grip-hold", "stream"), ("grip-channel", "c; prev-id=3"), LINK]
        app = App(
            {
                "/page": [Answer(200, [*STREAM, LINK], b"one")],
                "/next": [Answer(200, caught_up, b"three")],
            }
        )
        proxy = GripProxy(app, sig_key=KEY)
        clients = [await opened(proxy) for _ in range(3)]
        proxy.publish([item("three", "3", "2")])
        assert await asyncio.gather(*(anext(client) for client in clients)) == [b"three"] * 3
        assert app.lasts == ["c; last-id=1"]  # who asks the same shares it
        proxy.publish([item("four", "4", "3")])
        assert [await anext(client) for client in clients] == [b"four"] * 3
        for client in clients:
            await client.aclose()
        assert not proxy.is_watched("c")

    play(scenario())


def test_a_next_link_without_a_hold_ends_the_stream() -> None:
    async def scenario() -> None:
        app = App({"/page": [Answer(200, [*STREAM, LINK], b"one")], "/next": [Answer(200)]})
        proxy = GripProxy(app, sig_key=KEY)
        body = await opened(proxy)
        proxy.recover()
        assert await anext(body, None) is None

    play(scenario())


def test_a_next_link_that_fails_is_asked_again_and_then_the_stream_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRIES_S", (0, 0))
    monkeypatch.setattr(module, "RETRY_SPREAD_S", 0.0)

    async def scenario() -> None:
        app = App({"/page": [Answer(200, [*STREAM, LINK], b"one")]})
        proxy = GripProxy(app, sig_key=KEY)
        body = await opened(proxy)
        proxy.recover()
        assert await anext(body, None) is None
        assert len(app.lasts) == 3

    play(scenario())


def test_a_stream_with_a_version_and_no_next_link_ends() -> None:
    async def scenario() -> None:
        body = await opened(GripProxy(App({"/page": [Answer(200, STREAM, b"one")]}), sig_key=KEY))
        assert await anext(body, None) is None

    play(scenario())


def test_the_first_subscriber_of_a_channel_is_asked_for_what_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRST_SUBSCRIBER_S", 0.0)

    async def scenario() -> None:
        pages = [Answer(200, [*STREAM, LINK], b"one")]
        app = App({"/page": pages, "/next": [Answer(200, [*STREAM, LINK], b"two")]})
        body = await opened(GripProxy(app, sig_key=KEY))
        assert await anext(body) == b"two"
        await body.aclose()

    play(scenario())


def test_a_long_poll_is_answered_with_what_is_published() -> None:
    async def scenario() -> None:
        app = App({"/page": [Answer(304, [*POLL, ("etag", '"1"')])]})
        proxy = GripProxy(app, sig_key=KEY)
        polling = asyncio.create_task(proxy(PAGE))
        await until_watched(proxy)
        marker = poll_item("1.c", "1", meta={"require_sub": "%nobody"})
        proxy.publish([marker, poll_item("2", "1.c")])
        answer = await polling
        assert (answer.status, await whole_body(answer)) == (200, b"two")
        assert answer.headers == [("etag", '"1"')]

    play(scenario())


def test_a_long_poll_that_missed_an_item_asks_again() -> None:
    async def scenario() -> None:
        app = App({"/page": [Answer(304, POLL), Answer(200, [("etag", '"3"')], b"three")]})
        proxy = GripProxy(app, sig_key=KEY)
        polling = asyncio.create_task(proxy(PAGE))
        await until_watched(proxy)
        proxy.publish([poll_item("3", "2")])
        answer = await polling
        assert (answer.status, await whole_body(answer)) == (200, b"three")
        assert app.asked[1].says("grip-last") == "c; last-id=1"

    play(scenario())


def test_closing_ends_whoever_is_held() -> None:
    async def scenario() -> None:
        app = App({"/page": [Answer(304, POLL), Answer(200, [*STREAM, LINK], b"one")]})
        proxy = GripProxy(app, sig_key=KEY)
        polling = asyncio.create_task(proxy(PAGE))
        await until_watched(proxy)
        body = await opened(proxy)
        proxy.close()
        assert (await polling).status == 304
        assert await anext(body, None) is None

    play(scenario())


@pytest.mark.parametrize(
    "wrong", [("grip-hold", "steam"), ("grip-link", "</>; rel=next; timeout=x")]
)
def test_instructions_that_cannot_be_followed_are_a_502(wrong: tuple[str, str]) -> None:
    async def scenario() -> None:
        assert (
            await GripProxy(App({"/page": [Answer(200, [wrong])]}), sig_key=KEY)(PAGE)
        ).status == 502

    play(scenario())


async def until_watched(proxy: GripProxy) -> None:
    while not proxy.is_watched("c"):
        await asyncio.sleep(0)
