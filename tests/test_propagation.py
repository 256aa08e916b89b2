"""The simulation of regions, small: what docs/regions.md says of it holds."""

from __future__ import annotations

import pytest

from benchmarks.propagation import FAULTS, LAYOUTS, Row, World, compare, table

CONTROL = "control: told after eu's purge"


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, str], list[Row]]:
    return compare(changes=300, rate=20.0, seed=7)


def test_nobody_who_is_told_is_shown_the_old(results: dict[tuple[str, str], list[Row]]) -> None:
    stale = {
        (fault, layout): sum(row.stale for row in rows) for (fault, layout), rows in results.items()
    }

    assert all(count == 0 for (_, layout), count in stale.items() if layout != CONTROL)
    assert all(stale[fault, CONTROL] > 0 for fault in FAULTS)
    assert all(row.told for rows in results.values() for row in rows)


def test_a_region_that_is_cut_off_does_not_slow_down_the_others(
    results: dict[tuple[str, str], list[Row]],
) -> None:
    well, _, cut_off = (results[fault, "`regions`"] for fault in FAULTS)

    for before, now in zip(well[:2], cut_off[:2], strict=True):
        assert now.published_s[0] < 2 * before.published_s[0]
    assert cut_off[2].published_s[1] > 5.0


def test_every_change_reaches_every_region() -> None:
    for layout in LAYOUTS.values():
        for fault in FAULTS.values():
            world = World(layout, fault, seed=3)
            world.run(changes=60, rate=20.0)

            for site in world.sites:
                assert len(site.purged_s) == len(site.published_s) == 60


def test_the_table_has_a_row_for_each_region(results: dict[tuple[str, str], list[Row]]) -> None:
    assert len(table(results).splitlines()) == 2 + 3 * len(results)
