"""Changes: which topics a save changes, and what is said on them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.changes import Data, Watches, encode
from grip_edge_middleware.http import Response
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.types import Operation


class Bid:
    """A model."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


class SealedBid(Bid):
    """A model that inherits."""


class Other:
    """A model that nobody watches."""


def watch(*models: object, name: str = "lot-{lot}", **topic: Any) -> Watches:
    entry = {"models": list(models), **topic}
    return Watches.of(Settings.parse({"grip_url": None, "topics": {name: entry}}, {}).topics)


def names(
    watches: Watches,
    instance: object,
    operation: Operation = "update",
    before: dict[str, object] | None = None,
) -> list[str]:
    return [c.topic.name for c in watches.changes(operation, instance, before or {})]


def here(name: str) -> str:
    """The path of something in this file, as settings name it."""
    return f"{__name__}:{name}"


# --- which topics ---------------------------------------------------------------------------------


def test_a_save_changes_the_topic_that_its_attributes_fill() -> None:
    assert names(watch(Bid), Bid(lot="a b")) == ["lot-a%20b"]


def test_a_params_map_names_other_attributes() -> None:
    watches = watch({"model": Bid, "params": {"lot": "lot_id"}})

    assert names(watches, Bid(lot="x", lot_id=7)) == ["lot-7"]


def test_an_object_that_moves_changes_where_it_was_and_where_it_is() -> None:
    assert names(watch(Bid), Bid(lot=2), before={"lot": 1}) == ["lot-1", "lot-2"]


def test_an_object_that_stays_changes_its_topic_once() -> None:
    assert names(watch(Bid), Bid(lot=2), before={"price": 1, "lot": 2}) == ["lot-2"]


def test_of_two_attributes_the_old_ones_belong_together() -> None:
    watches = watch(Bid, name="lot:{sale}-{lot}")

    assert names(watches, Bid(sale="b", lot=2), before={"sale": "a", "lot": 1}) == [
        "lot:a-1",
        "lot:b-2",
    ]
    assert names(watches, Bid(sale="b", lot=2), before={"lot": 1}) == ["lot:b-1", "lot:b-2"]


@pytest.mark.parametrize(
    ("before", "now", "changed"), [(None, 2, ["lot-2"]), (1, None, ["lot-1"]), (None, None, [])]
)
def test_no_value_fills_no_topic(before: object, now: object, changed: list[str]) -> None:
    assert names(watch(Bid), Bid(lot=now), before={"lot": before}) == changed


def test_a_topic_without_parameters_is_changed_by_every_save() -> None:
    assert names(watch(Bid, name="lots"), Bid()) == ["lots"]


def test_one_save_may_change_several_topics() -> None:
    topics = {"lot-{lot}": {"models": [Bid]}, "lots": {"models": [Bid]}, "x": {"models": [Other]}}
    watches = Watches.of(Settings.parse({"topics": topics}, {}).topics)

    assert names(watches, Bid(lot=1)) == ["lot-1", "lots"]


@pytest.mark.parametrize(
    ("on", "operations"),
    [
        ("insert", ["insert"]),
        (["update", "delete"], ["update", "delete"]),
        (["insert", "update", "delete"], ["insert", "update", "delete"]),
    ],
)
def test_only_the_chosen_operations_count(on: object, operations: list[Operation]) -> None:
    watches = watch({"model": Bid, "on": on})
    every: list[Operation] = ["insert", "update", "delete"]

    assert [o for o in every if names(watches, Bid(lot=1), o)] == operations


def is_public(bid: Any) -> bool:
    return bool(bid.public)


@pytest.mark.parametrize("when", [is_public, here("is_public")])
def test_a_save_counts_only_when_the_condition_holds(when: object) -> None:
    watches = watch({"model": Bid, "when": when})

    assert names(watches, Bid(lot=1, public=True)) == ["lot-1"]
    assert names(watches, Bid(lot=1, public=False)) == []


def test_an_attribute_that_the_model_lacks_is_an_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="lot"):
        names(watch(Bid), Bid(price=1))


# --- which classes --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Bid, here("Bid")])
def test_a_class_is_watched_with_what_inherits_from_it(model: object) -> None:
    watches = watch(model)

    assert len(watches.find(Bid)) == 1
    assert len(watches.find(SealedBid)) == 1
    assert watches.find(Other) == ()
    assert watches.find(object) == ()


def test_the_child_alone_may_be_watched() -> None:
    watches = watch(SealedBid)

    assert watches.find(Bid) == ()
    assert len(watches.find(SealedBid)) == 1


def test_a_class_of_a_module_that_is_still_importing_is_known_by_its_path() -> None:
    early = type("Early", (), {"__module__": "app.not_yet"})

    assert len(watch("app.not_yet:Early").find(early)) == 1


def test_a_path_names_a_class_within_a_class() -> None:
    module = ModuleType("tests_of_changes_nested")
    module.Outer = type("Outer", (), {"Inner": Bid})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        assert len(watch("tests_of_changes_nested:Outer.Inner").find(Bid)) == 1
    finally:
        del sys.modules[module.__name__]


def test_the_watched_classes_are_listed_once() -> None:
    assert watch(Bid, here("Bid"), SealedBid, "nowhere:X").classes() == [Bid, SealedBid]


def test_a_path_that_names_nothing_is_listed() -> None:
    watches = watch(Bid, here("Bid"), here("Bit"), "nowhere:X", "nowhere:X", f"{__name__}:Bid.X.y")

    assert watches.unknown() == [here("Bit"), "nowhere:X", f"{__name__}:Bid.X.y"]


class Blind(str):
    """Equal to every other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __str__(self) -> str:
        return self


def test_values_that_compare_equal_are_not_taken_for_each_other() -> None:
    watches, values = watch(Bid), [1, True, 1.0, Blind("a"), Blind("b")]

    changed = [names(watches, Bid(lot=value)) for value in values]

    assert changed == [["lot-1"], ["lot-True"], ["lot-1.0"], ["lot-a"], ["lot-b"]]


def test_a_move_between_values_that_compare_equal_changes_both_topics() -> None:
    assert names(watch(Bid), Bid(lot=True), before={"lot": 1}) == ["lot-1", "lot-True"]


def test_a_topic_is_the_same_whichever_have_changed_meanwhile() -> None:
    watches, lots = watch(Bid), [*range(3000), "x" * 500]

    first, again = ([names(watches, Bid(lot=lot)) for lot in lots] for _ in range(2))

    assert first == again
    assert len({name for [name] in first}) == len(lots)


# --- what is said ---------------------------------------------------------------------------------


def test_without_a_payload_the_route_is_rendered() -> None:
    [change] = watch(Bid).changes("update", Bid(lot=1), {})

    assert change.message is None


def price(bid: Any) -> dict[str, Any]:
    return {"price": bid.price}


@pytest.mark.parametrize("payload", [price, here("price")])
def test_a_payload_is_what_is_published(payload: Callable[[Any], Any] | str) -> None:
    [change] = watch(Bid, payload=payload).changes("update", Bid(lot=1, price=5), {})

    assert change.message == encode({"price": 5})


def test_a_payload_that_names_nothing_is_logged_and_the_route_published(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watches = watch(Bid, payload=here("nothing"))

    [change] = watches.changes("update", Bid(lot=1), {})

    assert change.message is None
    assert f'nothing is named "{here("nothing")}"' in caplog.text


# --- (data, stream body, long-poll body) ----------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "stream", "response"),
    [
        ("data: é\n\n", "data: é\n\n".encode(), "data: é\n\n".encode()),
        (b"\xff\0", b"\xff\0", b"\xff\0"),
        ("", b"", b""),
        ({"a": 1}, b'data: {"a":1}\n\n', b'{"a":1}'),
        ({"a": "x\r\ny"}, b'data: {"a":"x\\r\\ny"}\n\n', b'{"a":"x\\r\\ny"}'),
        ([1, None, "é"], 'data: [1,null,"é"]\n\n'.encode(), '[1,null,"é"]'.encode()),
        ({}, b"data: {}\n\n", b"{}"),
    ],
)
def test_data_is_a_body_for_each_hold(data: Data, stream: bytes, response: bytes) -> None:
    messages = encode(data)

    assert messages["stream"].body == stream
    assert messages["response"].body == response
    assert {message.status for message in messages.values()} == {200}


def test_json_says_that_it_is_json_and_text_says_nothing() -> None:
    assert encode({})["response"].headers == {"content-type": "application/json"}
    assert encode("x")["response"] == Response(200, {}, b"x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
)


@given(st.dictionaries(st.text("abc\r\n"), JSON))
def test_json_is_one_line_of_one_event(data: dict[str, Any]) -> None:
    body = encode(data)["stream"].body

    assert body.startswith(b"data: ")
    assert body.endswith(b"\n\n")
    assert b"\n" not in body[:-2]
    assert b"\r" not in body
    assert json.loads(body.removeprefix(b"data: ")) == data


@pytest.mark.parametrize(
    "data", [{"a": object()}, {"a": {1, 2}}, {("a", "b"): 1}, 5.0 + 2j, {"a": b"x"}]
)
def test_what_json_cannot_say_is_a_type_error(data: Any) -> None:
    with pytest.raises(TypeError):
        encode(data)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_json_has_no_number_for_is_refused(number: float) -> None:
    # NaN is no JSON: JSON.parse of every client would throw.
    with pytest.raises((TypeError, ValueError)):
        encode({"price": number})


@pytest.mark.parametrize("data", ["\ud800", {"a": "\ud800"}])
def test_text_that_utf8_cannot_say_is_refused_or_escaped(data: Data) -> None:
    # documented: TypeError if it is neither text, bytes nor JSON
    try:
        messages = encode(data)
    except TypeError:
        return

    assert messages["stream"].body.isascii()
