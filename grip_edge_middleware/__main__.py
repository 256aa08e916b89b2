"""`python -m grip_edge_middleware`, which is `grip-edge`."""

from __future__ import annotations

import sys

from grip_edge_middleware.cli import main

if __name__ == "__main__":
    sys.exit(main())
