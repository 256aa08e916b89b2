"""An edge that sends nothing: what it would send is recorded, and acknowledged or refused."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager

from grip_edge_middleware.clock import ManualClock
from grip_edge_middleware.edge import GripEdge
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.lanes import Outcome
from grip_edge_middleware.testing.sent import Record, RecordingLanes, acknowledgement
from grip_edge_middleware.testing.wording import listing, logged_into, nearest

# A turn that changes nothing is a fault of ours; a test must not hang for it.
MAX_TURNS = 10_000


@contextmanager
def recording(edge: GripEdge) -> Iterator[Recording]:
    """Record what an edge would send while a block lasts; nothing leaves the process.

    Nothing is sent by itself then: `settle()` sends what the app has changed.
    """
    recorded = Recording(edge)
    with logged_into(recorded.logged), edge.sending_through(recorded, recorded.clock):
        yield recorded


class Recording(RecordingLanes):
    """What an edge would have sent. All targets acknowledge everything, unless they `refuse`.

    Time passes for the edge only by `advance`, or while `settle` waits for what was refused.
    """

    def __init__(self, edge: GripEdge) -> None:
        super().__init__(edge)
        self.clock = ManualClock()
        self._refusals: dict[str, _Refusal] = {}

    def __repr__(self) -> str:
        return f"<Recording: {len(self.sent)} sent, {len(self.pending())} pending>"

    # --- having it sent ---------------------------------------------------------------------

    def settle(self, timeout: float = 5.0, *, confirmations: bool = False) -> None:
        """Send all that is pending, without waiting for windows; AssertionError if it cannot be.

        What a target refuses is tried again for `timeout` seconds of the edge's own time, so this
        waits for nothing. With `confirmations`, the repeated purges and the markers that follow a
        change are sent as well.

        From a coroutine: `await asyncio.to_thread(recorded.settle)`.
        """
        _check_thread("settle")
        deadline = self.clock.now + timeout
        for _ in range(MAX_TURNS):
            due = self._turn(everything=True)
            if not self.pending():
                break
            if due is None or due > deadline:
                raise AssertionError(unsettled(self, self._edge, timeout))
            self.clock.advance_to(due)
        else:
            raise AssertionError(unsettled(self, self._edge, timeout))
        if confirmations:
            self._run_until(math.inf)

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass for the edge: windows end, what was refused is tried again."""
        _check_thread("advance")
        until = self.clock.now + seconds
        self._run_until(until)
        self.clock.advance_to(until)

    def _run_until(self, until: float) -> None:
        for _ in range(MAX_TURNS):
            due = self._turn()
            if due is None or due > until:
                return
            self.clock.advance_to(due)
        raise AssertionError(f"the edge does not come to rest; {listing(self)}")

    def _turn(self, *, everything: bool = False) -> float | None:
        return self._edge._configured.dispatcher.turn(self.clock.now, everything=everything)

    # --- trouble ----------------------------------------------------------------------------

    def refuse(self, target: str, status: int | None = 503, *, times: int | None = None) -> None:
        """Have the targets whose name contains `target` refuse what they are asked.

            recorded.refuse("varnish")                    # until accept("varnish")
            recorded.refuse("grip", status=403, times=2)  # then they acknowledge again
            recorded.refuse("fastly", status=None)        # they do not answer

        Names are as in `edge.health()["targets"]`; LookupError if there is none.
        """
        self._check_target(target)
        self._refusals[target] = _Refusal(status, math.inf if times is None else times)

    def accept(self, target: str) -> None:
        """Have the targets acknowledge again that were to `refuse`."""
        self._check_target(target)
        self._refusals.pop(target, None)

    def _answer(self, target: str, request: Request) -> Outcome:
        for name, refusal in self._refusals.items():
            if name in target and refusal.times > 0:
                refusal.times -= 1
                return refusal.outcome(target)
        return acknowledgement(request)

    def _check_target(self, wanted: str) -> None:
        names = self._edge.health()["targets"]
        if not any(wanted in name for name in names):
            near = nearest(wanted, (word for name in names for word in name.split()))
            raise LookupError(f'no target is named "{wanted}"{near}; there are {[*names]}')


class _Refusal:
    def __init__(self, status: int | None, times: float) -> None:
        self.status = status
        self.times = times

    def outcome(self, target: str) -> Outcome:
        if self.status is None:
            return DeliveryError(target, "no answer")
        return Response(self.status)


def unsettled(record: Record, edge: GripEdge, timeout: float) -> str:
    """Return what is still pending, and why."""
    lines = [f"not everything was delivered within {timeout:g} s"]
    for name, target in edge.health()["targets"].items():
        if target["failures"]:
            lines.append(f"  {name} failed {target['failures']} times: {target['error']}")
    return "\n".join([*lines, listing(record)])


def _check_thread(name: str) -> None:
    """What an ASGI app is asked for, its event loop answers: it must not wait for us."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"{name}() would block the event loop: await asyncio.to_thread({name})")
