"""What the tests of the matrix have found, kept for the page that says so."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.compatibility.matrix import PAIRS, Found, Pair


@pytest.fixture(scope="session")
def found(request: pytest.FixtureRequest) -> Found:
    """What was found so far."""
    return request.config.stash[FOUND]


FOUND = pytest.StashKey[Found]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FOUND] = Found()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have all tests of a pair follow each other, so that it is served once."""
    ours = iter(sorted(filter(is_about_a_pair, items), key=lambda item: PAIRS.index(pair_of(item))))
    items[:] = [next(ours) if is_about_a_pair(item) else item for item in items]


def is_about_a_pair(item: pytest.Item) -> bool:
    return item.get_closest_marker("column") is not None


def pair_of(item: pytest.Item) -> Pair:
    assert isinstance(item, pytest.Function)
    pair = item.callspec.params["pair"]
    assert isinstance(pair, Pair)
    return pair


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what comes of a test that is about a column."""
    report = yield
    marker = item.get_closest_marker("column")
    if marker is not None and (report.when == "call" or report.outcome != "passed"):
        [column] = marker.args
        item.config.stash[FOUND].note(pair_of(item), column, report.outcome)
    return report
