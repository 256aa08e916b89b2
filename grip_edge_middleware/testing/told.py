"""Assertions about what an edge has sent: purges, publishes, and in which order.

What a target refused counts as not sent, and a marker as no publish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from grip_edge_middleware.testing.sent import (
    Published,
    Purged,
    Record,
    Sent,
    publishes_in,
    purges_in,
)
from grip_edge_middleware.testing.wording import listing, nearest


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to be sent, for `assert_order`."""

    name: str
    is_met_by: Callable[[Sent], bool]


def purged(key: str) -> Step:
    """Return the purge of a key, for `assert_order`."""
    return Step(f'purge of "{key}"', lambda sent: isinstance(sent, Purged) and key in sent.keys)


def published(channel: str, containing: str = "") -> Step:
    """Return the publish on a channel, for `assert_order`."""
    ending = f" with {containing!r}" if containing else ""
    return Step(
        f'publish on "{channel}"{ending}',
        lambda sent: isinstance(sent, Published) and _says(sent, channel, containing),
    )


def assert_purged(record: Record, *keys: str, times: int | None = None) -> None:
    """Check that each key was purged at every CDN that was asked, `times` times if that is given.

    With several CDNs it counts the requests to each of them.
    """
    __tracebackhide__ = True
    for key in keys:
        counts = _by_target(sent.target for sent in purges_in(record.sent) if key in sent.keys)
        if not counts:
            known = [key for sent in purges_in(record.sent) for key in sent.keys]
            _fail(record, f'"{key}" was not purged{nearest(key, known)}')
        _check_times(record, f'"{key}" was purged', counts, times)


def assert_not_purged(record: Record, *keys: str) -> None:
    """Check that none of the keys was purged."""
    __tracebackhide__ = True
    for key in keys:
        if any(key in sent.keys for sent in purges_in(record.sent)):
            _fail(record, f'"{key}" was purged')


def assert_published(
    record: Record, channel: str, containing: str = "", *, times: int | None = None
) -> None:
    """Check that something was published on a channel, with a text if that is given."""
    __tracebackhide__ = True
    items = publishes_in(record.sent)
    found = [sent for sent in items if _says(sent, channel, containing)]
    if not found:
        texts = [text for sent in items if sent.channel == channel for text in sent.texts]
        if texts:
            said = "\n".join(f"  {text!r}" for text in dict.fromkeys(texts))
            what = f'nothing with {containing!r} was published on "{channel}", but:\n{said}'
        else:
            near = nearest(channel, (sent.channel for sent in items))
            what = f'nothing was published on "{channel}"{near}'
        _fail(record, what)
    counts = _by_target(sent.target for sent in found)
    _check_times(record, f'on "{channel}" it was published', counts, times)


def assert_not_published(record: Record, channel: str, containing: str = "") -> None:
    """Check that nothing was published on a channel, or nothing with a text."""
    __tracebackhide__ = True
    if any(_says(sent, channel, containing) for sent in publishes_in(record.sent)):
        ending = f" with {containing!r}" if containing else ""
        _fail(record, f'something{ending} was published on "{channel}"')


def assert_nothing_sent(record: Record) -> None:
    """Check that nothing was sent, and that nothing is still to be."""
    __tracebackhide__ = True
    if record.sent or record.pending():
        _fail(record, "expected that nothing is sent")


def assert_order(record: Record, *steps: Step) -> None:
    """Check that these were sent, each after the one before.

    assert_order(recorded, purged("counter-a"), published("counter-a"))
    """
    __tracebackhide__ = True
    sent = [each for each in record.sent if not each.refusal]
    position = 0
    for number, step in enumerate(steps):
        found = [at for at, each in enumerate(sent) if step.is_met_by(each)]
        if not found:
            _fail(record, f"there was no {step.name}")
        later = [at for at in found if at >= position]
        if not later:
            _fail(record, f"expected the {step.name} after the {steps[number - 1].name}")
        position = later[0] + 1


def assert_purged_before_published(record: Record, key: str, channel: str | None = None) -> None:
    """Check that a key was purged, and that nothing was published on the channel before.

    The channel is named as the key unless it is given.
    """
    __tracebackhide__ = True
    channel = key if channel is None else channel
    assert_purged(record, key)
    assert_published(record, channel)
    sent = [each for each in record.sent if not each.refusal]
    first = next(at for at, each in enumerate(sent) if published(channel).is_met_by(each))
    if not any(purged(key).is_met_by(each) for each in sent[:first]):
        _fail(record, f'"{channel}" was published on before "{key}" was purged')


def _says(sent: Published, channel: str, containing: str) -> bool:
    return (
        sent.channel == channel
        and not sent.is_marker
        and (not containing or any(containing in text for text in sent.texts))
    )


def _by_target(targets: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for target in targets:
        counts[target] = counts.get(target, 0) + 1
    return counts


def _check_times(record: Record, what: str, counts: dict[str, int], times: int | None) -> None:
    __tracebackhide__ = True
    for target, count in counts.items():
        if times is not None and count != times:
            found = "once" if count == 1 else f"{count} times"
            _fail(record, f"{what} {found} at {target}, expected {times}")


def _fail(record: Record, what: str) -> NoReturn:
    __tracebackhide__ = True
    raise AssertionError(f"{what}\n{listing(record)}")
