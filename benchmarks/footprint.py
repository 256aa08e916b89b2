"""What the package takes before and while it works: time to import, room on disk, memory."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import gripcontrol
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.measure import Effort
from benchmarks.results import Curve, Found, Result, at_most_times, result
from grip_edge_middleware.changes import Change
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.stores.memory import MemoryStore

OURS, PEER = "grip-edge-middleware", "gripcontrol"
ROOT = Path(__file__).resolve().parents[1]
# In the folder of a source checkout there is more than a wheel has.
PACKAGE = ROOT / "grip_edge_middleware"
SITE = Path(gripcontrol.__file__).parents[1]
PROGRAMS = {
    "bare": "pass",
    PEER: "import gripcontrol",
    OURS: "import grip_edge_middleware",
    "edge": (
        "from grip_edge_middleware import GripEdge\n"
        'GripEdge(settings={"cdn": "varnish://127.0.0.1:9", "grip_url": "http://127.0.0.1:9",'
        ' "topics": {"a-{n}": {"routes": ["/a/<n>/"], "hold": "stream"}}})'
    ),
}
SETTINGS = Settings.parse({"topics": {"item-{n}": {"routes": ["/items/<n>/"]}}}, {})
[ITEM] = SETTINGS.topics
TOPICS = (1_000, 10_000, 100_000)


# --- at the start -------------------------------------------------------------------------------


def imports(effort: Effort) -> Iterator[Result]:
    """What an import takes of a processor, without the interpreter's start."""
    found: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with _library() as library:
        for _ in range(effort.pick(20, 3) + 1):
            for name, program in PROGRAMS.items():
                found[name].append(_run(program, library) * 1000)
    # The first time of each reads files that are in no cache yet.
    bare, peer, ours, edge = (times[1:] for times in found.values())
    yield result(
        "import grip_edge_middleware: processor time",
        [its - bares for its, bares in zip(ours, bare, strict=True)],
        "ms",
        base="import gripcontrol",
        base_values=[its - bares for its, bares in zip(peer, bare, strict=True)],
        target=at_most_times(1.5),
    )
    yield result(
        "import, and an edge made of settings",
        [its - bares for its, bares in zip(edge, bare, strict=True)],
        "ms",
        base="import gripcontrol",
        base_values=[its - bares for its, bares in zip(peer, bare, strict=True)],
    )


def _run(program: str, library: Path) -> float:
    """Run a program that has nothing but what the package requires."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(library)!r})\n"]
    command[-1] += program
    before = _processor_s()
    subprocess.run(command, check=True)
    return _processor_s() - before


def _processor_s() -> float:
    """Return the processor time of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def _library() -> Iterator[Path]:
    """Link what the package requires into a folder: what else is installed is not imported."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        tops = {
            file.parts[0] for dist in _closure(OURS) - {OURS} for file in metadata.files(dist) or ()
        }
        for top in tops - {"..", "__pycache__"}:
            (folder / top).symlink_to(SITE / top)
        (folder / PACKAGE.name).symlink_to(PACKAGE)
        yield folder


def size(effort: Effort) -> Iterator[Result]:
    """How much is installed: each with all that it requires."""
    peer = sum(map(_size, _closure(PEER)))
    ours = sum(map(_size, _closure(OURS) - {OURS})) + _size_of(PACKAGE)
    yield result(
        "installed, with what it requires",
        [ours / 1e6],
        "MB",
        base="gripcontrol",
        base_values=[peer / 1e6],
        target=at_most_times(1.5),
    )


def _closure(name: str) -> set[str]:
    """Return a distribution and all that it requires without extras."""
    found: set[str] = set()
    wanted = [Requirement(name)]
    while wanted:
        requirement = wanted.pop()
        if (canonical := canonicalize_name(requirement.name)) in found:
            continue
        found.add(canonical)
        extras = ["", *requirement.extras]
        for line in metadata.requires(requirement.name) or ():
            needed = Requirement(line)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(needed)
    return found


def _size(name: str) -> int:
    files = metadata.files(name) or ()
    return sum(Path(str(file.locate())).stat().st_size for file in files if _is_kept(file))


def _is_kept(file: metadata.PackagePath) -> bool:
    return file.suffix != ".pyc" and Path(str(file.locate())).is_file()


def _size_of(folder: Path) -> int:
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return sum(file.stat().st_size for file in files)


# --- while it works -----------------------------------------------------------------------------


def memory(effort: Effort) -> Iterator[Found]:
    """What the memory store holds, for topics that wait and for those that were delivered."""
    numbers = TOPICS[: effort.pick(3, 2)]
    pending = [(float(number), _bytes(number, _submit)) for number in numbers]
    idle = [(float(number), _bytes(number, _deliver)) for number in numbers]
    kinds = (("a pending topic", pending), ("a version and its gate mark", idle))
    for name, points in kinds:
        yield Curve.of(f"memory of {name}", "topics", "bytes in all", points)
        for number, in_all in points:
            yield result(f"{name}, of {number:,.0f}", [in_all / number], "bytes")
    yield _bound(numbers[-1])


def _bound(most: int) -> Result:
    """Twice as many topics as are allowed take no more than these."""
    allowed = _bytes(most, _submit, most=most)
    return result(
        f"twice {most:,} topics where {most:,} may wait",
        [_bytes(2 * most, _submit, most=most) / 1e6],
        "MB",
        base="as many as may",
        base_values=[allowed / 1e6],
        target=at_most_times(1.5),
    )


def _bytes(topics: int, fill: Callable[[MemoryStore, int], None], *, most: int = 10**6) -> float:
    gc.collect()
    tracemalloc.start()
    try:
        store = MemoryStore(max_pending=most, max_versions=most, confirm_after_s=[1.0, 2.0])
        fill(store, topics)
        gc.collect()
        return float(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()


def _submit(store: MemoryStore, topics: int) -> None:
    for number in range(topics):
        store.add([Change(ITEM.template.fill({"n": str(number)}), ITEM, None)], 0.0)
        store.take_in()


def _deliver(store: MemoryStore, topics: int) -> None:
    """Deliver all, and confirm them twice."""
    _submit(store, topics)
    for now in (0.0, 10.0, 20.0, 30.0):
        store.release(store.claim(now, limit=topics), now)
    assert store.next_due() is None
