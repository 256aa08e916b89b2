"""What is due is claimed once, however many workers are awake."""

from __future__ import annotations

from pathlib import Path

from tests.workers.harness import Site, numbered, paced

TOPICS = 50


def test_fifty_trailing_edges_are_each_claimed_once(store: object, tmp_path: Path) -> None:
    names = list(numbered(TOPICS))
    with Site(tmp_path, store, throttle=2.0, confirm_after=0) as site:
        site.create(*names)
        machine = site.start("gunicorn", workers=4)
        paced(lambda number: machine.save(names[number]), TOPICS, 0)
        site.wait_until_told(dict.fromkeys(names, 1))
        batches = len(site.server.purges)
        paced(lambda number: machine.save(names[number]), TOPICS, 0)
        site.wait_until_told(dict.fromkeys(names, 2))
        machine.stop()
        sent = [site.sent(name) for name in names]
        batches = len(site.server.purges) - batches

    print(f"\n{site.store_kind:6} {TOPICS} trailing edges by 4 workers: claimed {batches} times")
    assert {one.purges for one in sent} == {2}
    assert {len(one.published) for one in sent} == {2}
    assert all(one.is_in_order for one in sent)
