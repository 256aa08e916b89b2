"""`grip-edge init`, by what it writes."""

from __future__ import annotations

import json
import os
import re
import runpy
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from grip_edge_middleware import GripEdge
from grip_edge_middleware.cli import main
from grip_edge_middleware.cli.init import EDGES, FRAMEWORKS
from grip_edge_middleware.cli.status import OK, WRONG_USE
from grip_edge_middleware.settings import Settings

EXAMPLES = Path(__file__).parents[2] / "examples" / "edge"
VARNISHD = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"}


def init(folder: Path, *options: str) -> int:
    return main(["init", str(folder), *options])


def environment(folder: Path) -> dict[str, str]:
    """What a shell has that sourced the environment file, and filled it in."""
    file = folder / "grip-edge.env"
    if not file.exists():
        return {}
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return {name: value or "filled-in" for name, _, value in (s.partition("=") for s in lines)}


def sig_key(folder: Path) -> str:
    return (folder / "edge/pushpin.conf").read_text().partition("sig_key=")[2].splitlines()[0]


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_settings_are_valid(framework: str, edge: str, tmp_path: Path) -> None:
    init(tmp_path, "--framework", framework, "--edge", edge)

    found: Any = runpy.run_path(str(tmp_path / "grip_edge.py"))["GRIP_EDGE"]
    settings = Settings.parse(found, environment(tmp_path))
    assert len(settings.cdns) == len(settings.proxies) == 1
    [topic] = settings.topics
    assert list(topic.rendered_routes) == ["stream"]


def test_the_settings_say_how_flask_is_wired(tmp_path: Path) -> None:
    init(tmp_path, "--framework", "flask")

    flask = pytest.importorskip("flask")
    names = runpy.run_path(str(tmp_path / "grip_edge.py"))
    wiring = [line for line in names["__doc__"].splitlines() if "from grip_edge import" not in line]
    code = "\n".join(line.strip() for line in wiring if line.startswith("    "))
    scope = {"app": flask.Flask("shop"), "GRIP_EDGE": names["GRIP_EDGE"]}
    exec(code, scope)
    edge: Any = scope["edge"]
    assert isinstance(edge, GripEdge)
    edge.close()


def test_what_configures_the_edge_is_what_the_tests_run(tmp_path: Path) -> None:
    init(tmp_path, "--edge", "pushpin-varnish")

    for name in ("default.vcl", "routes"):
        assert (tmp_path / "edge" / name).read_bytes() == (EXAMPLES / name).read_bytes()
    found = (tmp_path / "edge/pushpin.conf").read_text()
    shipped = (EXAMPLES / "pushpin.conf").read_text()
    assert re.sub("(?m)^sig_key=.*$", "", found) == re.sub("(?m)^sig_key=.*$", "", shipped)


def test_varnish_takes_the_vcl(tmp_path: Path) -> None:
    init(tmp_path, "--edge", "pushpin-varnish")

    command = ["varnishd", "-C", "-j", "none", "-n", str(tmp_path / "varnish")]
    try:
        done = subprocess.run(
            [*command, "-f", str(tmp_path / "edge/default.vcl")],
            env=VARNISHD,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("varnishd is not installed")
    assert done.returncode == 0, done.stderr


def test_the_key_is_new_each_time_and_where_only_its_readers_see_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        init(folder, "--edge", "pushpin-varnish")

    keys = {sig_key(folder) for folder in folders}
    assert len(keys) == 2
    for folder in folders:
        key = sig_key(folder)
        assert len(key) >= 32
        assert environment(folder)["GRIP_VERIFY_KEY"] == key
        assert key not in (folder / "grip_edge.py").read_text()
        for name in ("grip-edge.env", "edge/pushpin.conf"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert not any(key in text for key in keys for text in capsys.readouterr())


def test_fastlys_snippets_say_that_nobody_ran_them(tmp_path: Path) -> None:
    init(tmp_path, "--edge", "fastly")

    found = {path.name for path in (tmp_path / "edge").iterdir()}
    assert found == {path.name for path in (EXAMPLES / "fastly").iterdir()}
    assert "Nobody has run" in (tmp_path / "edge/README.md").read_text()


def test_where_a_folder_cannot_be_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "edge").write_text("mine")

    assert init(tmp_path, "--edge", "pushpin-varnish") == WRONG_USE
    assert [path.name for path in tmp_path.iterdir()] == ["edge"]


def test_nothing_is_overwritten_unless_it_is_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "grip_edge.py").write_text("mine")

    refused = init(tmp_path, "--edge", "pushpin-varnish")

    said = capsys.readouterr().err
    assert refused == WRONG_USE
    assert f"{tmp_path}/grip_edge.py: already there, so nothing was written" in said
    assert [path.name for path in tmp_path.iterdir()] == ["grip_edge.py"]
    assert (tmp_path / "grip_edge.py").read_text() == "mine"
    assert init(tmp_path, "--force") == OK
    assert "GRIP_EDGE" in (tmp_path / "grip_edge.py").read_text()


def test_it_says_what_it_wrote_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path / "a", "--edge", "pushpin-varnish")
    for_people = capsys.readouterr().out
    init(tmp_path / "b", "--edge", "pushpin-varnish", "--json")
    for_programs = json.loads(capsys.readouterr().out)

    assert f"wrote {tmp_path}/a/grip_edge.py" in for_people
    assert "next  start the cache: varnishd" in for_people
    assert all(Path(name).is_file() for name in for_programs["written"])
    assert len(for_programs["written"]) == 5
    assert for_programs["next"][0] == f"cd {tmp_path}/b"


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    assert init(tmp_path / "file") == WRONG_USE
    assert f"{tmp_path}/file" in capsys.readouterr().err
