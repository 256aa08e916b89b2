"""A process that takes in changes, and sends them, until it is killed: is any of them lost?

    report = kill(path, kills=5, seed=1)
    assert report.lost == 0

It is the only process. After each kill there is another, which goes on with what the file has.
As in `tests/sources/kills.py`, a zygote forks them, so that each is at work within milliseconds.
What a process says is in a pipe, so it is not lost with it: a change that was taken in, and one
that was delivered. All that was taken in must have been delivered, or be there at the end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from launch import end_with_parent

from grip_edge_middleware.stores import Claim
from grip_edge_middleware.stores.shared import SharedStore
from grip_edge_middleware.stores.sqlite import SQLiteShelf
from tests.stores.test_contract import CODEC, chat, counter, values

ROOT = Path(__file__).resolve().parents[2]
LONGEST_LIFE_S = 0.1
LEASE_S = 0.05
ROUND = 1_000_000
# What a pipe takes while nobody reads it is 64 KiB.
LONGEST_REPORT = 60_000


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the changes."""

    kills: int
    acknowledged: int
    """Changes that were taken in before the kill, or rather, that had been said to be."""
    left: int
    """Topics that the last process left."""
    again: int
    """Changes that were delivered more than once."""
    lost: int
    integrity: str


def kill(path: Path, *, kills: int, seed: int) -> Report:
    """Kill the only process so many times, at moments that follow from the seed."""
    zygote = subprocess.run(
        [sys.executable, "-m", "tests.stores.kills", str(path), str(kills), str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=end_with_parent,
    )
    assert zygote.returncode == 0, zygote.stderr[-5_000:]
    return Report(**json.loads(zygote.stdout))


def main() -> None:
    end_with_parent()
    path, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    said: list[str] = []
    for number in range(1, kills + 1):
        said += _kill_one(path, number, chance.uniform(0.0, LONGEST_LIFE_S))
    print(json.dumps(asdict(_report(path, kills, said))))


def _kill_one(path: Path, number: int, lives_s: float) -> list[str]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work_forever(path, number, writing)
    os.close(writing)
    time.sleep(lives_s)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"child {number} ended by itself"
    with os.fdopen(reading) as pipe:
        return pipe.read().splitlines()


def _work_forever(path: Path, number: int, pipe: int) -> None:
    end_with_parent()
    try:
        _work(path, number, pipe)
        signal.pause()  # the pipe is full
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _work(path: Path, number: int, pipe: int) -> None:
    store = SharedStore(SQLiteShelf(path, CODEC), lease_s=LEASE_S)
    chance = random.Random(number)
    room = LONGEST_REPORT

    def say(lines: list[str]) -> None:
        nonlocal room
        text = "".join(f"{line}\n" for line in lines).encode()
        room -= len(text)
        if room > 0:
            os.write(pipe, text)

    for count in range(number * ROUND, (number + 1) * ROUND):
        change = chance.choice([counter, chat])(chance.choice("abc"), str(count))
        store.add([change], time.monotonic())
        store.take_in()
        say([f"+ {change.topic.name} {count}"])
        if chance.random() < 0.3:
            claims = store.claim(time.monotonic(), limit=10, everything=chance.random() < 0.5)
            say([f"- {key} {value}" for key, value in _delivered(claims)])
            store.release(claims, time.monotonic())
        if room <= 0:
            return


def _delivered(claims: list[Claim]) -> list[tuple[str, str]]:
    return [(claim.topic.name, value) for claim in claims for value in values(claim)]


def _report(path: Path, kills: int, said: list[str]) -> Report:
    taken_in: dict[str, list[int]] = defaultdict(list)
    delivered: dict[str, list[int]] = defaultdict(list)
    for line in said:
        what, key, value = line.split()
        (taken_in if what == "+" else delivered)[key].append(int(value))
    left = _claim_all(path)
    for key, value in _delivered(left):
        delivered[key].append(int(value))
    with closing(sqlite3.connect(path)) as connection:
        [(integrity,)] = connection.execute("PRAGMA integrity_check")
    return Report(
        kills,
        acknowledged=sum(map(len, taken_in.values())),
        left=len(left),
        again=sum(len(all_of) - len(set(all_of)) for all_of in delivered.values()),
        lost=sum(_lost(key, numbers, delivered[key]) for key, numbers in taken_in.items()),
        integrity=integrity,
    )


def _claim_all(path: Path) -> list[Claim]:
    """Claim all that is there, at a time when all leases and windows have ended."""
    shelf = SQLiteShelf(path, CODEC, clock=lambda: time.time() + 1_000.0)
    with closing(SharedStore(shelf)) as store:
        return store.claim(time.monotonic(), limit=1_000)


def _lost(key: str, taken_in: list[int], delivered: list[int]) -> int:
    """Return how many are lost: of a counter, only the last one counts, or a later one."""
    if key.startswith("chat"):
        return len(set(taken_in) - set(delivered))
    return int(max(taken_in) > max(delivered, default=0))


if __name__ == "__main__":
    main()
