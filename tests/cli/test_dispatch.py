"""`grip-edge`, by what it prints and returns."""

from __future__ import annotations

from pathlib import Path

import pytest

from grip_edge_middleware.cli import main
from grip_edge_middleware.cli.status import WRONG_USE

APP = """
from grip_edge_middleware import GripEdge
edge = GripEdge(settings={"topics": {"counters": {}}, "grip_url": None})
number = 7
"""


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("{module}", 'expected MODULE:NAME, as in "app:edge"'),
        ("../shop:edge", "../shop is no module's name; --app-dir says where it is"),
        ("{module}:", 'expected MODULE:NAME, as in "app:edge"'),
        ("no_such_module:edge", "No module named 'no_such_module'; is --app-dir where it is?"),
        ("{module}:nothing", 'there is no "nothing" in {module}'),
        ("{module}:number", "expected a GripEdge, a dict of settings, or a Flask"),
        ("{module}:edge", 'store: other processes do not share this one (set store to "redis:'),
    ],
)
def test_who_asks_for_what_cannot_be_is_told_why(
    named: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = f"app_of_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(APP)

    ended = main(["dispatch", named.format(module=module), "--app-dir", str(tmp_path)])

    assert ended == WRONG_USE
    assert said.format(module=module) in capsys.readouterr().err


def test_without_a_command_its_use_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])

    assert ended.value.code == WRONG_USE
    assert "usage: grip-edge" in capsys.readouterr().err
