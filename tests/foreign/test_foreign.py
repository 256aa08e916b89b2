"""Drop-in means that nothing else changes: other people's test suites end as they do without us.

The table with what the edge did meanwhile is printed by `-s`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.foreign.harness import Outcome, SetUpError, run, table
from tests.missing import skip_outside_ci

# What is installed, and then a whole suite, twice.
pytestmark = pytest.mark.timeout(3600)

SMALLEST = "httpbin"
OTHERS = ("isso", "devpi", "allauth", "starlette", "fastapi")


@pytest.fixture(scope="module")
def outcomes() -> Iterator[list[Outcome]]:
    found: list[Outcome] = []
    yield found
    print(table(found))


@pytest.mark.parametrize(
    "name", [SMALLEST, *(pytest.param(name, marks=pytest.mark.lab) for name in OTHERS)]
)
def test_a_suite_ends_as_without_us(name: str, outcomes: list[Outcome]) -> None:
    try:
        outcome = run(name)
    except SetUpError as error:
        skip_outside_ci(f"{name} cannot be installed: {error}")
    outcomes.append(outcome)

    assert {*outcome.differences} == {*outcome.application.EXPECTED}
    assert "not collected" not in outcome.plain.values()
    assert outcome.passed > 0
    assert outcome.too_few == {}, outcome.responses
