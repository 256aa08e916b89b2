"""What CDNs and GRIP proxies answer when a command asks them itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from grip_edge_middleware.cli.screen import Said, Screen
from grip_edge_middleware.cli.status import FOUND_WRONG, OK
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.transport import Transport


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one target's requests. `status` is that of the last, None without one."""

    target: str
    took_s: float
    status: int | None = None
    error: str = ""


def ask(
    transport: Transport,
    target: str,
    requests: Iterable[Request],
    check: Callable[[Response], None],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Answer:
    """Send one request after the other, until one is not acknowledged."""
    began, status = clock(), None
    try:
        for request in requests:
            response = transport.send(request)
            status = response.status
            check(response)
    except DeliveryError as error:
        return Answer(target, clock() - began, status, error.reason)
    return Answer(target, clock() - began, status)


def show(screen: Screen, answers: Sequence[Answer]) -> int:
    """Print a line for each target; return the status with which the command ends."""
    screen.table(["target", "answer", "status", "ms"], map(_row, answers))
    return FOUND_WRONG if any(answer.error for answer in answers) else OK


def build_answers(answers: Iterable[Answer]) -> list[dict[str, object]]:
    """Return them as JSON has them."""
    return [asdict(answer) | {"took_s": round(answer.took_s, 6)} for answer in answers]


def _row(answer: Answer) -> list[Said]:
    said = (answer.error, "bold red") if answer.error else ("acknowledged", "green")
    return [answer.target, said, str(answer.status or "-"), f"{answer.took_s * 1000:.0f}"]
