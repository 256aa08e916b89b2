"""One benchmark in a process of its own: what it finds goes to stdout, a line of JSON each.

python -m benchmarks.worker routes [--quick]
"""

from __future__ import annotations

import argparse
import json
import signal
import sys

from benchmarks.catalogue import BENCHMARKS
from benchmarks.measure import Effort
from benchmarks.results import build_found


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one benchmark.")
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    # Else what it has started would go on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    for found in BENCHMARKS[options.name].run(Effort(is_quick=options.quick)):
        print(json.dumps(build_found(found)), flush=True)


if __name__ == "__main__":
    main()
