"""Requests under way: every target has a lane, and all lanes are used at the same time.

Who asks may stop waiting for an answer; the request goes on until it is answered or times out.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from typing import Protocol

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.transport import Transport

logger = logging.getLogger(__name__)

Outcome = Response | DeliveryError
Answer = tuple[str, Outcome]
"""Whose lane it came in, and what."""


class Lanes(Protocol):
    """Sends requests and hands out their answers as they come. Used by one thread at a time."""

    def start(self, target: str, request: Request) -> None:
        """Send a request to a target that has none under way."""

    def wait(self, timeout_s: float) -> Answer | None:
        """Return the next answer, None if there is none in time."""

    def after_fork(self) -> None:
        """Forget what is under way: it is the parent's."""

    def close(self) -> None:
        """Close idle connections."""


class InlineLanes:
    """One request after the other, on the thread that asks."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.after_fork()

    def start(self, target: str, request: Request) -> None:
        """Send the request and wait for its answer."""
        self._answers.append((target, _ask(self._transport, request)))

    def wait(self, timeout_s: float) -> Answer | None:
        """Return the oldest answer that was not taken yet."""
        return self._answers.popleft() if self._answers else None

    def after_fork(self) -> None:
        """Forget the answers."""
        self._answers: deque[Answer] = deque()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()


class ThreadLanes:
    """A daemon thread for each request: nothing idles, and a fork has nothing to mend."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.after_fork()

    def start(self, target: str, request: Request) -> None:
        """Send the request from a thread of its own."""
        arguments = (self._answers, target, request)
        thread = threading.Thread(
            target=self._send, args=arguments, name="grip-edge request", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is shutting down, or there are too many threads.
            self._send(*arguments)

    def wait(self, timeout_s: float) -> Answer | None:
        """Return the next answer, None if there is none in time."""
        try:
            return self._answers.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def after_fork(self) -> None:
        """Begin anew: the queue's lock may be held by a thread that the child does not have."""
        # Looked up in its module, where gevent puts its own.
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def _send(self, answers: queue.SimpleQueue[Answer], target: str, request: Request) -> None:
        # Whatever happens there is an answer, or the target would be waited for for ever.
        outcome: Outcome = DeliveryError(target, "the request was broken off")
        try:
            outcome = _ask(self._transport, request)
        except Exception as error:
            logger.exception(
                "a request to %s failed by a fault of ours",
                target,
                extra=log_fields(target=target),
            )
            outcome = DeliveryError(target, f"cannot be asked: {type(error).__name__}")
        finally:
            answers.put((target, outcome))


def _ask(transport: Transport, request: Request) -> Outcome:
    try:
        return transport.send(request)
    except DeliveryError as error:
        return error
