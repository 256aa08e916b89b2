"""Gates that say what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from grip_edge_middleware.gate import Gate


class StubGate:
    """Says that nothing changed, and what `versions` says of each topic.

    `has_changed` is asked instead. One that `is_still` answers the same for ever.
    """

    is_local = True

    def __init__(
        self,
        versions: Callable[[Iterable[str]], Mapping[str, str]] = lambda names: {},
        has_changed: Callable[[Iterable[str], bool], bool] = lambda keys, lag: False,
        *,
        is_still: bool = False,
    ) -> None:
        self._versions = versions
        self._has_changed = has_changed
        self.is_still = is_still

    def for_request(self, names: Iterable[str]) -> Gate:
        return self

    def sequence(self) -> int:
        return 0

    def is_unchanged(self, since: int) -> bool:
        return self.is_still

    def has_changed(self, keys: Iterable[str], since: int, *, lag: bool = True) -> bool:
        return self._has_changed(keys, lag)

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        return dict(self._versions(names))
