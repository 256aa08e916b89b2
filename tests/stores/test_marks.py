"""The marks of the gate: which keys changed since a request began."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.stores.marks import KEPT_S, Marks


def test_what_was_begun_before_a_change_may_be_old() -> None:
    marks = Marks()
    since = marks.sequence
    marks.mark(["a"], 0.0)

    assert marks.has_changed(["b", "a"], since, 0.0)


def test_what_was_begun_after_a_change_is_not() -> None:
    marks = Marks()
    marks.mark(["a"], 0.0)
    since = marks.sequence

    assert not marks.has_changed(["a"], since, 0.0)


def test_another_keys_change_does_not_count() -> None:
    marks = Marks()
    since = marks.sequence
    marks.mark(["a"], 0.0)

    assert not marks.has_changed(["b"], since, 0.0)


def test_a_read_from_a_lagging_replica_may_be_old_although_it_began_later() -> None:
    marks = Marks(lag_s=1.0)
    marks.mark(["a"], 10.0)
    since = marks.sequence

    assert marks.has_changed(["a"], since, 10.9)
    assert not marks.has_changed(["a"], since, 11.0)


def test_a_request_older_than_what_is_remembered_may_be_old() -> None:
    marks = Marks()
    since = marks.sequence
    marks.mark(["a"], 0.0)
    marks.mark(["b"], KEPT_S + 1.0)

    assert len(marks) == 1
    assert marks.has_changed(["a"], since, KEPT_S + 1.0)
    assert marks.has_changed(["never changed"], since, KEPT_S + 1.0)


def test_marks_are_forgotten() -> None:
    marks = Marks()
    for now in range(10_000):
        marks.mark([f"key {now}"], float(now))

    assert len(marks) <= KEPT_S + 1


KEYS = st.sampled_from("abc")


@given(st.lists(st.tuples(KEYS, st.floats(0, 100)), max_size=30), KEYS)
def test_a_key_changed_if_it_was_marked_since(steps: list[tuple[str, float]], key: str) -> None:
    marks, now, begun = Marks(), 0.0, []
    for marked, pause_s in steps:
        begun.append(marks.sequence)
        now += pause_s
        marks.mark([marked], now)

    for position, since in enumerate(begun):
        is_marked = any(marked == key for marked, _ in steps[position:])
        # Never less than the truth. More only for what is too old to be told.
        assert marks.has_changed([key], since, now) >= is_marked
