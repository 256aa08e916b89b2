"""Tells what passes between two parts of the edge, which need not know of it."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, replace

from grip_edge_middleware.devedge.exchange import Answer, Asked, Fetch
from grip_edge_middleware.devedge.happenings import (
    Happening,
    Place,
    Tell,
    distinct,
    said,
    shown_target,
    text_of,
)
from grip_edge_middleware.devedge.instruct import parse_channels
from grip_edge_middleware.surrogate import parse_keys

# What reaches several clients within this time is told as one push.
TOGETHER_S = 0.02

_trips = itertools.count(1)


def new_trip() -> int:
    """Return a number that nothing had before."""
    return next(_trips)


class Told:
    """A `Fetch` that tells what it is asked and what it answers."""

    def __init__(self, fetch: Fetch, source: Place, target: Place, tell: Tell) -> None:
        self._fetch = fetch
        self._source: Place = source
        self._target: Place = target
        self._tell = tell

    async def __call__(self, asked: Asked, /) -> Answer:
        """Answer as the other would."""
        asked = self._numbered(asked)
        self._tell_request(asked)
        began = time.perf_counter()
        try:
            answer = await self._fetch(asked)
        except asyncio.CancelledError:
            self._tell_answer(asked, Answer(0), began, "gone")
            raise
        except Exception:
            self._tell_answer(asked, Answer(0), began, "no answer")
            raise
        self._tell_answer(asked, answer, began, str(answer.status))
        return answer

    def _numbered(self, asked: Asked) -> Asked:
        """Begin a trip with whoever asks. The proxy asks for itself what a client has missed."""
        is_new = not asked.trip or (self._source == "proxy" and bool(asked.says("grip-last")))
        return replace(asked, trip=new_trip()) if is_new else asked

    def _tell_request(self, asked: Asked) -> None:
        self._tell(
            Happening(
                "request",
                self._source,
                self._target,
                f"{asked.method} {shown_target(asked)}",
                asked.trip,
                detail=asked.headers,
            )
        )

    def _tell_answer(self, asked: Asked, answer: Answer, began: float, text: str) -> None:
        self._tell(
            Happening(
                "answer",
                self._target,
                self._source,
                text,
                asked.trip,
                seen=answer.says("x-cache"),
                names=channels_of(answer),
                keys=keys_of(answer),
                took_s=time.perf_counter() - began,
                detail=answer.headers,
            )
        )


def channels_of(answer: Answer) -> tuple[str, ...]:
    """Return the channels that an answer names."""
    return distinct(channel.name for channel in parse_channels(answer.says("grip-channel")))


def keys_of(answer: Answer) -> tuple[str, ...]:
    """Return the surrogate keys that an answer carries."""
    values = (value for name, value in answer.headers if name in ("surrogate-key", "xkey"))
    return distinct(parse_keys(values))


@dataclass(frozen=True, slots=True)
class Pushed:
    """What clients are sent, and why: an item of a channel, or what they had missed."""

    channel: str
    content: bytes
    id: str | None = None
    why: str = "published"


class FanOut:
    """Tells one push for all who are sent the same within a moment: when the first was."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._reached: dict[Pushed, list[int]] = {}

    def reach(self, hold: int, pushed: Pushed) -> None:
        """Note that a client is sent something."""
        reached = self._reached.setdefault(pushed, [])
        reached.append(hold)
        if len(reached) == 1:
            loop = asyncio.get_running_loop()
            loop.call_later(TOGETHER_S, self._tell_all, pushed, time.time())

    def _tell_all(self, pushed: Pushed, at: float) -> None:
        reached = self._reached.pop(pushed)
        self._tell(
            Happening(
                "push",
                "proxy",
                "client",
                pushed.why,
                names=(pushed.channel,),
                count=len(reached),
                holds=tuple(reached),
                detail=said(id=pushed.id, content=text_of(pushed.content)),
                at=at,
            )
        )
