"""Every code block in the documentation is run, or checked against what runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from grip_edge_middleware import GripEdge, SettingsError
from tests.recording import RecordingServer
from tests.stores import redis_server

ROOT = Path(__file__).parents[1]
NAMES = (
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/command-line.md",
    "docs/freshness.md",
    "docs/observability.md",
    "docs/regions.md",
    "docs/sources.md",
    "docs/testing.md",
    "docs/workers.md",
)
DOCUMENTS = [ROOT / name for name in NAMES]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What runs a shell command of the documentation, since a test cannot.
COMMANDS = {
    "grip-edge dev shop:app": "tests/cli/test_dev.py",
    "grip-edge dispatch shop:edge": "tests/workers/test_dispatch.py",
    "grip-edge init --framework flask --edge pushpin-varnish": "tests/cli/test_init.py",
    "grip-edge publish --app shop:edge 'counter-{name}' name=coffees '{\"value\": 7}'": (
        "tests/cli/test_publish.py"
    ),
    "grip-edge purge --app shop:edge 'counter-{name}' name=coffees": "tests/cli/test_purge.py",
    "grip-edge watch": "tests/cli/test_watch.py",
    "grip-edge check --app shop:app --url http://localhost:7999/counters/coffees": (
        "tests/cli/test_check.py"
    ),
    "grip-edge explain --app shop:app --direct /counters/coffees": "tests/cli/test_explain.py",
    "grip-edge explain http://localhost:7999/counters/coffees": "tests/cli/test_explain.py",
    "grip-edge routes --app shop:app /counters/coffees": "tests/cli/test_routes.py",
    "make demo": "tests/live/test_demo.py",
    "make propagation": "tests/test_propagation.py",
}


def blocks(kind: str, document: Path = ROOT / "README.md") -> list[str]:
    return [text for found, text in BLOCK.findall(document.read_text()) if found == kind]


@pytest.fixture(scope="module")
def edge_server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture(scope="module")
def readme(
    edge_server: RecordingServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """README's Python, run from top to bottom as a reader would, but for ports and folders."""
    folder = tmp_path_factory.mktemp("readme")
    flask_names: dict[str, Any] = {"__name__": "readme_flask"}
    names: dict[str, Any] = {"__name__": "readme"}
    for position, block in enumerate(blocks("python")):
        block = re.sub(r"localhost:\d+", f"localhost:{edge_server.port}", block)
        block = block.replace("sqlite:///", f"sqlite:///{folder}/")
        code = compile(block, f"README.md, Python {position + 1}", "exec", dont_inherit=True)
        exec(code, names if position else flask_names)
    yield {"flask": flask_names, **names}
    flask_names["edge"].close()
    names["edge"].close()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_kind_of_block_is_known(document: Path) -> None:
    kinds = {kind for kind, _ in BLOCK.findall(document.read_text())}

    assert kinds <= {"python", "sh", "http", "text"}


def test_readmes_headers_are_those_of_its_program(readme: dict[str, Any]) -> None:
    app, db, counter = (readme["flask"][name] for name in ("app", "db", "Counter"))
    with app.app_context():
        assert db.session.get(counter, "coffees").value == 0

    wrapped = app.test_client().get("/counters/coffees")
    app.wsgi_app = app.wsgi_app.app
    plain = app.test_client().get("/counters/coffees")

    before, after = blocks("http")
    assert header_lines(plain) == before.splitlines()
    assert without_versions(header_lines(wrapped)) == without_versions(after.splitlines())


def test_readmes_submit_and_publish_arrive(
    readme: dict[str, Any], edge_server: RecordingServer
) -> None:
    assert readme["edge"].flush(10)

    assert "score-7" in edge_server.purges[-1].keys
    assert edge_server.publishes[-1].items[0]["formats"] == {
        "http-stream": {"content": 'data: {"home":2}\n\n'}
    }


def test_what_sources_md_writes_and_says_arrives(
    edge_server: RecordingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "sources_md"}
    seen: list[set[str]] = []
    for position, block in enumerate(blocks("python", ROOT / "docs/sources.md")):
        already = len(edge_server.purges)
        block = re.sub(r"localhost:\d+", f"localhost:{edge_server.port}", block)
        code = compile(block, f"sources.md, Python {position + 1}", "exec", dont_inherit=True)
        exec(code, names)
        for function, arguments in CALLS.items():
            if f"async def {function}(" in block:
                asyncio.run(names[function](*arguments))
        assert names["edge"].flush(10)
        seen.append({key for purge in edge_server.purges[already:] for key in purge.keys})
    names["edge"].close()
    names["engine"].dispose()

    wanted = [{"score-%all"}, set(), {"score-7", "table"}, {"score-7"}, {"score-7"}, {"auction-7"}]
    # A purge that is repeated may come in between.
    assert [keys & found for keys, found in zip(wanted, seen, strict=True)] == wanted
    assert "score-7" not in seen[1]


class Stranger:
    """What any ORM's object, or client's collection, has for the examples."""

    id = 7
    home = 0

    async def save(self) -> None:
        pass

    async def update_one(self, wanted: object, change: object) -> None:
        pass


# How the functions of docs/sources.md are called.
CALLS: dict[str, tuple[Any, ...]] = {"count": (Stranger(),), "bid": (Stranger(), 7, 100)}


def test_regions_mds_settings_are_right() -> None:
    [block] = blocks("python", ROOT / "docs/regions.md")
    names: dict[str, Any] = {}
    exec(block, names)

    with closing(GripEdge(settings=names["GRIP_EDGE"], environ={})) as edge:
        targets = list(edge.health()["targets"])
    assert targets[:2] == ["varnish http://shield:6081", "eu varnish http://eu-cache:6081"]
    assert [name.split()[0] for name in targets].count("ap") == 3


def test_what_workers_md_sets_is_sent(edge_server: RecordingServer, tmp_path: Path) -> None:
    on_sqlite, on_redis, external, health = blocks("python", ROOT / "docs/workers.md")
    names: dict[str, Any] = {"__name__": "workers_md"}
    with redis_server.running() as redis:
        for name, block in {"sqlite": on_sqlite, "redis": on_redis}.items():
            block = re.sub(r"localhost:(6081|5561)", f"localhost:{edge_server.port}", block)
            block = block.replace("localhost:6379", f"localhost:{redis.port}")
            exec(block.replace("/var/lib/shop", str(tmp_path)), names)
            with closing(GripEdge(settings=names["GRIP_EDGE"], environ={})) as edge:
                edge.publish("counter-{name}", "1", name=name)
                assert edge.flush(10)
                exec(health, {"edge": edge})
        exec(external, names)
        with closing(GripEdge(settings=names["GRIP_EDGE"], environ={})) as edge:
            edge.publish("counter-{name}", "1", name="external")
            assert edge.flush(10)
    names["edge"].close()

    assert {"counter-sqlite", "counter-redis"} <= set(edge_server.channels)
    assert "counter-external" not in edge_server.channels


OBSERVABILITY = ROOT / "docs/observability.md"


def test_what_observability_md_shows_runs_and_is_so(
    edge_server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"__name__": "observability_md"}
    for position, block in enumerate(blocks("python", OBSERVABILITY)):
        block = re.sub(r"localhost:\d+", f"localhost:{edge_server.port}", block)
        exec(compile(block, f"observability.md, {position + 1}", "exec", dont_inherit=True), names)
    names["edge"].close()

    [lines] = blocks("text", OBSERVABILITY)
    told = capsys.readouterr().out
    assert "shop_edge_changes_total 1.0" in told
    assert {span.name for span in names["exporter"].get_finished_spans()} >= {
        "grip_edge.deliver",
        "grip_edge.publish",
    }
    assert re.sub(r'"\d{10,}"', '"V"', names["told"]) == re.sub(r'"\d{10,}"', '"V"', lines.strip())


def test_observability_md_names_every_metric_and_log_field() -> None:
    from grip_edge_middleware import metrics
    from grip_edge_middleware.log_fields import Fields

    documented = set(re.findall(r"^\| `grip_edge_(\w+)`", OBSERVABILITY.read_text(), re.MULTILINE))

    gauges = {re.sub("_s$", "_seconds", name) for name in metrics.GAUGES}
    counters = {f"{event}_total" for event in metrics.EVENTS}
    latencies = {"commit_to_purge_seconds", "commit_to_publish_seconds"}
    assert documented == gauges | counters | latencies | set(Fields.__annotations__)


def header_lines(response: Any) -> list[str]:
    return [f"{name}: {value}" for name, value in response.headers]


def without_versions(lines: list[str]) -> list[str]:
    return [re.sub(r"prev-id=\d+", "prev-id=V", line) for line in lines]


def test_readmes_mistakes_are_reported_so() -> None:
    [text] = blocks("text")

    with pytest.raises(SettingsError) as error:
        GripEdge(
            settings={
                "throtle": 1,
                "grip_url": None,
                "topics": {"counter-{name}": {"routes": ["/counters/<name>"], "hold": "steam"}},
            }
        )

    assert str(error.value) == text.rstrip("\n")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_is_run_by_a_test(document: Path) -> None:
    for block in blocks("sh", document):
        for line in block.splitlines():
            assert (ROOT / COMMANDS[line]).exists()


def test_readme_names_every_setting_and_its_default() -> None:
    from grip_edge_middleware import settings

    text = (ROOT / "README.md").read_text()
    documented = set(
        re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.*?) \|", text, re.MULTILINE)))
    )

    known = {
        *settings._ROUTE_DEFAULTS,
        *settings._TOPIC_DEFAULTS,
        *settings._TOPIC_ONLY,
        *settings._GLOBAL_DEFAULTS,
        *settings._GLOBAL_ONLY,
    }
    assert documented == known


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), target
