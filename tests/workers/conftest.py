"""The stores that workers share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The setting of a store that is empty."""
    return f"sqlite:///{tmp_path / 'store'}"
