"""What a test does without a program that it needs."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_outside_ci(reason: str) -> NoReturn:
    """Skip the test. In CI fail it: there a skip would be a hole that nobody sees."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
