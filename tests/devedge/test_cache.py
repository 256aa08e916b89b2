"""The development cache in front of an app that is only answers. `tests/live/` has the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from grip_edge_middleware.devedge.cache import Cache
from grip_edge_middleware.devedge.exchange import Answer, Asked, OriginFailed, whole_body

KEPT = [("surrogate-control", "max-age=60, stale-if-error=600"), ("surrogate-key", "a")]
PAGE = Asked("GET", "/page", [("host", "localhost")])


@dataclass
class App:
    """Answers with the number of the request."""

    headers: list[tuple[str, str]] = field(default_factory=lambda: list(KEPT))
    status: int = 200
    is_down: bool = False
    asked: list[Asked] = field(default_factory=list)
    read: int = 0
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, asked: Asked, /) -> Answer:
        self.asked.append(asked)
        number = len(self.asked)
        await self.may_answer.wait()
        if self.is_down:
            raise OriginFailed("refused")
        return Answer(self.status, self.headers, self._body(number))

    async def _body(self, number: int) -> AsyncGenerator[bytes, None]:
        yield b"%d" % number
        self.read += 1


@pytest.fixture
def app() -> App:
    app = App()
    app.may_answer.set()
    return app


async def ask(cache: Cache, asked: Asked = PAGE) -> tuple[int, str, bytes]:
    answer = await cache(asked)
    return answer.status, answer.says("x-cache"), await whole_body(answer)


def test_the_second_request_is_a_hit(app: App) -> None:
    async def scenario() -> None:
        cache = Cache(app)
        assert await ask(cache) == (200, "MISS", b"1")
        assert await ask(cache) == (200, "HIT", b"1")
        assert (await cache(PAGE)).says("x-cache-hits") == "2"

    asyncio.run(scenario())


def test_many_requests_at_once_are_one(app: App) -> None:
    async def scenario() -> None:
        cache = Cache(app)
        app.may_answer.clear()
        asking = [asyncio.create_task(ask(cache)) for _ in range(20)]
        while not app.asked:
            await asyncio.sleep(0)
        app.may_answer.set()

        assert {body for _, _, body in await asyncio.gather(*asking)} == {b"1"}

    asyncio.run(scenario())


def test_who_asked_first_may_go_away(app: App) -> None:
    async def scenario() -> None:
        cache = Cache(app)
        app.may_answer.clear()
        first, second = (asyncio.create_task(ask(cache)) for _ in range(2))
        while not app.asked:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait((first,))
        app.may_answer.set()

        assert await second == (200, "HIT", b"1")

    asyncio.run(scenario())


def test_what_cannot_be_shared_is_asked_for_by_each(app: App) -> None:
    app.headers = [("cache-control", "private")]

    async def scenario() -> None:
        cache = Cache(app)
        assert [body for _, _, body in [await ask(cache), await ask(cache)]] == [b"1", b"2"]
        app.may_answer.clear()
        asking = [asyncio.create_task(ask(cache)) for _ in range(3)]
        while len(app.asked) < 5:
            await asyncio.sleep(0)
        app.may_answer.set()
        assert len({body for _, _, body in await asyncio.gather(*asking)}) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("is_down", [True, False])
def test_a_purged_page_is_shown_only_while_the_app_fails(app: App, is_down: bool) -> None:
    async def scenario() -> None:
        cache = Cache(app)
        await ask(cache)
        cache.purge(["a"])
        app.is_down, app.status = is_down, 503
        assert await ask(cache) == (200, "STALE", b"1")
        app.is_down, app.status = False, 200
        assert await ask(cache) == (200, "MISS", b"3")

    asyncio.run(scenario())


def test_an_expired_page_is_asked_for_and_gone_when_its_time_is_up(app: App) -> None:
    now = [0.0]

    async def scenario() -> None:
        cache = Cache(app, clock=lambda: now[0])
        await ask(cache)
        now[0], app.is_down = 659.0, True
        assert (await ask(cache))[1:] == ("STALE", b"1")
        now[0] = 660.0
        assert (await ask(cache))[0] == 503

    asyncio.run(scenario())


def test_a_body_that_nobody_is_shown_is_read_all_the_same(app: App) -> None:
    app.headers = [("cache-control", "private"), ("etag", '"1"')]

    async def scenario() -> None:
        answer = await Cache(app)(PAGE.saying(("if-none-match", '"1"')))
        assert (answer.status, app.read) == (304, 1)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("headers", "client", "status"),
    [
        ([("xkey-purge", "a b")], "127.0.0.1", 200),
        ([], "127.0.0.1", 400),
        ([("xkey-purge", "a")], "192.0.2.1", 403),
        ([("xkey-purge", "a"), ("grip-sig", "x")], "127.0.0.1", 403),
    ],
)
def test_who_may_purge(app: App, headers: list[tuple[str, str]], client: str, status: int) -> None:
    async def scenario() -> None:
        cache = Cache(app)
        await ask(cache)
        answer = await cache(Asked("PURGEKEYS", "/", headers, client=client))
        assert answer.status == status
        assert answer.says("grip-edge-purged") == ("1" if status == 200 else "")
        assert (await ask(cache))[1] == ("MISS" if status == 200 else "HIT")

    asyncio.run(scenario())
