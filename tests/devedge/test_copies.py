"""What the development cache holds."""

from __future__ import annotations

import pytest

from grip_edge_middleware.devedge import copies as module
from grip_edge_middleware.devedge.copies import Copies, Copy
from grip_edge_middleware.devedge.exchange import Answer, Asked
from grip_edge_middleware.devedge.rules import Lifetime

ASKED = Asked("GET", "/")
NOW = 100.0


def keep(copies: Copies, keys: str, name: str = "/", asked: Asked = ASKED, vary: str = "") -> Copy:
    answer = Answer(200, [("surrogate-key", keys), ("vary", vary)])
    copy = copies.begin(name, asked, answer, Lifetime(60, 600), NOW)
    copies.complete(name, copy, b"body")
    return copy


def test_a_copy_is_fresh_and_then_stands_in() -> None:
    copies = Copies()
    copy = keep(copies, "a")

    assert copies.find("/", ASKED, NOW + 59) is copy
    assert (copy.is_fresh(NOW + 59), copy.is_fresh(NOW + 60)) == (True, False)
    assert copies.find("/", ASKED, NOW + 659) is copy
    assert copies.find("/", ASKED, NOW + 660) is None


def test_a_soft_purge_leaves_what_may_stand_in() -> None:
    copies = Copies()
    copy = keep(copies, "a b")

    assert copies.purge(["b", "a", "other"], NOW) == 2
    assert copies.find("/", ASKED, NOW) is copy
    assert not copy.is_fresh(NOW)


def test_a_hard_purge_leaves_nothing() -> None:
    copies = Copies()
    keep(copies, "a b")
    kept = keep(copies, "c", "/other")

    assert copies.purge(["a", "b"], NOW, hard=True) == 2
    assert copies.find("/", ASKED, NOW) is None
    assert list(copies) == [("/other", kept)]
    assert copies.purge(["a", "b"], NOW) == 0


def test_a_purge_finds_a_copy_whose_body_is_on_its_way() -> None:
    copies = Copies()
    answer = Answer(200, [("surrogate-key", "a")])
    copy = copies.begin("/", ASKED, answer, Lifetime(60, 600), NOW)
    assert copies.find("/", ASKED, NOW) is None

    assert copies.purge(["a"], NOW) == 1
    copies.complete("/", copy, b"body")

    assert not copy.is_fresh(NOW)


def test_a_new_copy_takes_the_place_of_the_old_one() -> None:
    copies = Copies()
    keep(copies, "a")
    new = keep(copies, "b")

    assert list(copies) == [("/", new)]
    assert copies.purge(["a"], NOW) == 0


def test_copies_that_vary_stand_side_by_side() -> None:
    copies = Copies()
    html, stream = (Asked("GET", "/", [("accept", accept)]) for accept in ("html", "stream"))
    kept = [keep(copies, "a", asked=asked, vary="Accept") for asked in (html, stream)]

    assert [copies.find("/", asked, NOW) for asked in (html, stream)] == kept
    assert copies.find("/", ASKED, NOW) is None


def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COPIES", 2)
    copies = Copies()
    for name in ("/1", "/2", "/3"):
        keep(copies, "a", name)

    assert [name for name, _ in copies] == ["/2", "/3"]
    assert len(copies) == copies.purge(["a"], NOW) == 2
