"""An edge with an outbox, whose changes are delivered when the test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from grip_edge_middleware.changes import Change
from grip_edge_middleware.metrics import Counts
from grip_edge_middleware.outbox import Outbox
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.sources import Observer, Source
from tests.recording import DEADLINE_S

S = TypeVar("S", bound=Source)


class Edge(Generic[S]):
    """Records what is submitted."""

    def __init__(self, settings: Settings, connect: Callable[[Observer], S]) -> None:
        self.submitted: list[str] = []
        self.delivered = 0
        self.metrics = Counts()
        self._arrived = threading.Condition()
        self.outbox = Outbox(
            settings.topics,
            submit=self.submit,
            submitted=lambda: len(self.submitted),
            delivered=lambda: self.delivered,
            finish=lambda: None,
            metrics=self.metrics,
            throttle_s=1.0,
            grace_s=0.2,
        )
        self.source = connect(Observer.of(settings, self.submit, self.metrics, self.outbox))

    def submit(self, changes: Sequence[Change]) -> None:
        with self._arrived:
            self.submitted.extend(change.topic.name for change in changes)
            self._arrived.notify_all()

    def wait_for(self, *names: str) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: set(self.submitted) >= set(names), DEADLINE_S)

    def deliver_and_close(self) -> None:
        self.source.disconnect()
        self.delivered = len(self.submitted)
        self.outbox.close()


def left_by_another(name: str) -> dict[str, Any]:
    """The values of a row that a killed process left, which says that item-{name} changed."""
    changes = f'[{{"topic":"item-{name}","of":"item-{{name}}","params":[["name","{name}"]]}}]'
    return {"id": name, "edge": "", "due": 0, "changes": changes}
