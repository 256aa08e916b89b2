"""Every code block in the documentation is run, or checked against what runs.

There is a rule for each kind of block, and it holds in each document. Python is run from top to
bottom, as a reader would, but for ports and folders; what is HTTP among it is asked of the app that
the page has made so far.
"""

from __future__ import annotations

import ast
import asyncio
import configparser
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, nullcontext
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
from launch import VARNISH_PARAMETERS, free_ports, is_free
from starlette.testclient import TestClient

from grip_edge_middleware import GripEdge, SettingsError, metrics, reference
from grip_edge_middleware.log_fields import Fields
from grip_edge_middleware.settings import DEV_VARIABLE, defaults
from tests.missing import skip_outside_ci
from tests.recording import DEADLINE_S, RecordingServer
from tests.stores import redis_server
from tools import edges_page, settings_page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "grip_edge_middleware"
EDGE = ROOT / "examples/edge"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")),
    *sorted(EDGE.glob("**/*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"http", "ini", "js", "python", "sh", "text", "vcl", "{toctree}"}

# What runs a shell command of the documentation, if no test here does.
COMMANDS = {
    "apt-get install pushpin varnish varnish-modules": "tools/install-system-packages.sh",
    "curl -N http://127.0.0.1:7999/.grip-edge/probe": "tests/live/test_edge_config.py",
    'curl -X PURGEKEYS -H "xkey-purge: counter-coffees" http://127.0.0.1:6081/': (
        "tests/live/test_edge_config.py"
    ),
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
# What a test here runs, or looks at.
RUN_HERE = re.compile(r"pip install |python edge.py|curl .*localhost:7999|django-admin |varnishd ")

# Whose Python has a test of its own, rather than `test_python_and_http_of_a_page`.
OWN_TESTS = {
    "README.md": "test_readmes_headers_are_those_of_its_program",
    "docs/django.md": "test_the_project_of_django_md_is_live",
    "docs/from-django-eventstream.md": "test_the_project_after_django_eventstream_is_live",
    "docs/from-fastly-purging.md": "test_both_ways_of_from_fastly_purging_md_purge_the_same",
    "docs/observability.md": "test_what_observability_md_shows_runs_and_is_so",
    "docs/regions.md": "test_regions_mds_settings_are_right",
    "docs/sources.md": "test_what_sources_md_writes_and_says_arrives",
    "docs/start.md": "test_start_md_ends_as_it_says",
    "docs/testing.md": "tests/testkit/test_projects.py",
    "docs/workers.md": "test_what_workers_md_sets_is_sent",
}


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def blocks(kind: str, document: Path = ROOT / "README.md") -> list[str]:
    return [text for found, text in BLOCK.findall(document.read_text()) if found == kind]


def having(*kinds: str) -> pytest.MarkDecorator:
    """Run a test with each document that has blocks of one of these kinds."""
    found = [d for d in DOCUMENTS if any(blocks(kind, d) for kind in kinds)]
    return pytest.mark.parametrize("document", found, ids=name_of)


@pytest.fixture(scope="module")
def edge_server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[RecordingServer]:
    """One that no other test's edge confirms its purges to."""
    with RecordingServer() as server:
        yield server


def here(block: str, server: RecordingServer, folder: Path) -> str:
    """Return a block whose CDN and GRIP proxy are the server, and whose files are in the folder."""
    block = re.sub(r"localhost:(6081|5561)", f"localhost:{server.port}", block)
    block = block.replace("https://api.fastly.com", server.url)
    block = re.sub(r'("token": "PURGE-TOKEN")', rf'\1, "url": "{server.url}"', block)
    return re.sub(r"(sqlite(?:\+\w+)?:///)(?!/)", rf"\1{folder}/", block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_kind_of_block_is_known(document: Path) -> None:
    fences = re.findall(r"^```", document.read_text(), re.MULTILINE)
    found = BLOCK.findall(document.read_text())

    assert {kind for kind, _ in found} <= KINDS
    assert len(fences) == 2 * len(found)


# --- Python and HTTP --------------------------------------------------------------------------


@having("python", "http")
def test_python_and_http_of_a_page(
    document: Path,
    edge_server: RecordingServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name_of(document) in OWN_TESTS:
        own = OWN_TESTS[name_of(document)]
        assert own in globals() or document.name in (ROOT / own).read_text()
        return
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": document.stem}
    for position, (kind, block) in enumerate(BLOCK.findall(document.read_text())):
        if kind == "python":
            block = here(block, edge_server, tmp_path)
            code = compile(block, f"{document.name}, {position}", "exec", dont_inherit=True)
            exec(code, names)
        elif kind == "http":
            assert_answers(names["app"], block)

    edges = {id(edge): edge for edge in names.values() if isinstance(edge, GripEdge)}.values()
    assert [edge.flush(10) for edge in edges] == [True] * len(edges)
    for edge in edges:
        edge.close()


def assert_answers(app: Any, block: str) -> None:
    """Ask an app the request of a block, and compare status and headers."""
    request, _, response = block.partition("\n\n")
    target = re.fullmatch(r"GET (\S+) HTTP/1.1", request)
    assert target is not None
    status, *wanted = response.rstrip("\n").splitlines()

    if hasattr(app, "test_client"):
        answer = app.test_client().get(target[1])
        found = [f"{name}: {value}" for name, value in answer.headers]
    else:
        with TestClient(app, base_url="http://localhost") as client:
            answer = client.get(target[1])
        found = [f"{name}: {value}" for name, value in answer.headers.multi_items()]
    assert answer.status_code == int(status.split()[1])
    assert_headers(wanted, found)


def assert_headers(wanted: list[str], found: list[str]) -> None:
    """Compare lines, whatever the case of the names; what is there may be more."""
    missing = set(map(comparable, wanted)) - set(map(comparable, found))
    assert not missing, found


def comparable(line: str) -> str:
    name, _, value = line.partition(": ")
    value = re.sub(r"prev-id=\d+", "prev-id=V", value)
    value = re.sub(r'^"[^"]*"$', '"V"', value)
    return f"{name.lower()}: {value}"


@pytest.fixture(scope="module")
def readme(
    edge_server: RecordingServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """README's Python: the program has names of its own."""
    folder = tmp_path_factory.mktemp("readme")
    flask_names: dict[str, Any] = {"__name__": "readme_flask"}
    names: dict[str, Any] = {"__name__": "readme"}
    for position, block in enumerate(blocks("python")):
        block = here(block, edge_server, folder)
        code = compile(block, f"README.md, Python {position + 1}", "exec", dont_inherit=True)
        exec(code, names if position else flask_names)
    yield {"flask": flask_names, **names}
    flask_names["edge"].close()
    names["edge"].close()


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

    assert "score-7" in edge_server.purged_keys
    assert {"http-stream": {"content": 'data: {"home":2}\n\n'}} in [
        item["formats"] for item in edge_server.items
    ]


def header_lines(response: Any) -> list[str]:
    return [f"{name}: {value}" for name, value in response.headers]


def without_versions(lines: list[str]) -> list[str]:
    return [re.sub(r"prev-id=\d+", "prev-id=V", line) for line in lines]


def test_what_sources_md_writes_and_says_arrives(
    own_server: RecordingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "sources_md"}
    seen: list[set[str]] = []
    for position, block in enumerate(blocks("python", ROOT / "docs/sources.md")):
        already = len(own_server.purges)
        block = re.sub(r"localhost:\d+", f"localhost:{own_server.port}", block)
        code = compile(block, f"sources.md, Python {position + 1}", "exec", dont_inherit=True)
        exec(code, names)
        for function, arguments in CALLS.items():
            if f"async def {function}(" in block:
                asyncio.run(names[function](*arguments))
        assert names["edge"].flush(10)
        seen.append({key for purge in own_server.purges[already:] for key in purge.keys})
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
    documented = set(re.findall(r"^\| `grip_edge_(\w+)`", OBSERVABILITY.read_text(), re.MULTILINE))

    gauges = {re.sub("_s$", "_seconds", name) for name in metrics.GAUGES}
    counters = {f"{event}_total" for event in metrics.EVENTS}
    latencies = {"commit_to_purge_seconds", "commit_to_publish_seconds"}
    assert documented == gauges | counters | latencies | set(Fields.__annotations__)


def test_fastly_md_sends_each_token_to_its_service(edge_server: RecordingServer) -> None:
    names: dict[str, Any] = {"__name__": "fastly_md"}
    for block in blocks("python", ROOT / "docs/fastly.md"):
        exec(here(block, edge_server, ROOT), names)
    with closing(names["edge"]) as edge:
        assert edge.flush(10)

    sent = [(r.path, r.headers) for r in edge_server.requests if "/service/" in r.path]
    assert {path for path, _ in sent} >= {"/service/VCL/purge", "/service/COMPUTE/publish/"}
    assert all(h["fastly-key"] == "PURGE-TOKEN" for path, h in sent if path.endswith("purge"))
    assert all(
        h["authorization"] == "Bearer PUBLISH-TOKEN" for path, h in sent if "COMPUTE" in path
    )


def test_both_ways_of_from_fastly_purging_md_purge_the_same(
    own_server: RecordingServer, tmp_path: Path
) -> None:
    document = ROOT / "docs/from-fastly-purging.md"
    names: dict[str, Any] = {"__name__": "from_fastly_purging_md"}
    seen: list[set[str]] = []
    for position, block in enumerate(blocks("python", document)):
        already = len(own_server.purges)
        block = here(block, own_server, tmp_path)
        code = compile(block, f"{document.name}, {position}", "exec", dont_inherit=True)
        if not re.search("^(import|from) (django|fastly)|name:shop", block, re.MULTILINE):
            exec(code, names)
            if "def sell(" in block:
                sell_one(names)
            if "edge" in names:
                assert names["edge"].flush(10)
            if "GripEdge(app)" in block:
                assert_answers(names["app"], blocks("http", document)[0])
                names["edge"].close()
            seen.append({key for purge in own_server.purges[already:] for key in purge.keys})
    names["edge"].close()
    names["engine"].dispose()

    sold, projects = {"product-7", "products"}, {"project/shop", "all-projects"}
    assert seen[0] == sold
    assert seen[1] >= sold
    assert seen[2] == projects | {"user/ada"}
    assert seen[3] >= projects | {"user/ada", "user/bob"}
    assert seen[4] >= projects


def sell_one(names: dict[str, Any]) -> None:
    app, db = names["app"], names["db"]
    with app.app_context():
        db.create_all()
        with names["edge"].suppress() if "edge" in names else nullcontext():
            db.session.add(names["Product"](id=7, stock=3))
            db.session.commit()
    assert app.test_client().post("/products/7").status_code == 204


# --- projects: pages whose Python is files -----------------------------------------------------


def write_project(document: Path, server: RecordingServer, folder: Path) -> None:
    """Write each Python block into the file that its first line names."""
    for block in blocks("python", document):
        first, _, rest = block.partition("\n")
        path = folder / re.fullmatch(r"# ([\w/]+\.py)", first)[1]  # type: ignore[index]
        path.parent.mkdir(exist_ok=True)
        path.write_text(here(rest, server, folder))
        compile(rest, str(path), "exec")  # also of what is not run


def run(folder: Path, *command: str, code: str | None = None, **environ: str) -> str:
    """Run a command in a project, with this package, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"} | environ,
        input=code,
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Asks the project what its arguments say; its ASGI application is made as well.
ASK_DJANGO = """
import io, json, sys
from wsgiref.util import setup_testing_defaults
from shop.wsgi import application
from grip_edge_middleware.django import edge

def ask(method, path, form=""):
    environ, answer = {"PATH_INFO": path, "REQUEST_METHOD": method}, {}
    environ |= {"wsgi.input": io.BytesIO(form.encode()), "CONTENT_LENGTH": str(len(form))}
    environ |= {"CONTENT_TYPE": "application/x-www-form-urlencoded"}
    setup_testing_defaults(environ)
    def start(status, headers, *_):
        answer.update(status=status, headers=[f"{k}: {v}" for k, v in headers])
    body = application(environ, start)
    answer["body"] = b"".join(body).decode()
    body.close()
    return answer

print(json.dumps([*(ask(*each.split()) for each in sys.argv[1:]), edge.flush(10)]))
import shop.asgi
edge.close()
"""


def test_the_project_of_django_md_is_live(edge_server: RecordingServer, tmp_path: Path) -> None:
    document = ROOT / "docs/django.md"
    write_project(document, edge_server, tmp_path)
    (tmp_path / "shop/__init__.py").touch()
    for block in blocks("sh", document):
        for line in block.splitlines():
            run(tmp_path, "-m", *line.replace("django-admin", "django", 1).split())
    run(tmp_path, "first.py", DJANGO_SETTINGS_MODULE="shop.settings")
    asked = ("GET /products/7/", "POST /products/7/")
    page, _, is_flushed = json.loads(run(tmp_path, "-", *asked, code=ASK_DJANGO))

    [block] = blocks("http", document)
    status, *wanted = block.partition("\n\n")[2].rstrip("\n").splitlines()
    assert page["status"] == status.removeprefix("HTTP/1.1 ")
    assert_headers(wanted, page["headers"])
    assert is_flushed
    assert 'data: {"name": "tea", "stock": 2}\n\n' in [
        item["formats"]["http-stream"]["content"]
        for item in edge_server.items
        if item["channel"] == "product-7"
    ]


# What the two pages share: a project's own ways to start.
STARTS = [block for block in blocks("python", ROOT / "docs/django.md") if "_application" in block]

# Before it is asked: an order, and an event about it.
SEND_EVENT = """
import django
django.setup()
from django.core.management import call_command
from shop.events import edge, send_event
from shop.models import Order

call_command("migrate", run_syncdb=True, verbosity=0)
Order.objects.create(id=7, status="new")
send_event("order-{id}", "shipped", {"by": "post"}, id=7)
assert edge.flush(10)
"""


def test_the_project_after_django_eventstream_is_live(
    edge_server: RecordingServer, tmp_path: Path
) -> None:
    document = ROOT / "docs/from-django-eventstream.md"
    write_project(document, edge_server, tmp_path)
    for block in STARTS:
        name, _, rest = block.partition("\n")
        (tmp_path / name.removeprefix("# ")).write_text(rest)
    (tmp_path / "shop/__init__.py").touch()
    settings = {"DJANGO_SETTINGS_MODULE": "shop.settings"}
    asked = ("POST /orders/7/ status=sent", "GET /orders/7/events/")
    code = SEND_EVENT + ASK_DJANGO
    posted, page, _ = json.loads(run(tmp_path, "-", *asked, code=code, **settings))

    assert posted["status"].startswith("204")
    [block] = blocks("http", document)
    assert_headers(block.partition("\n\n")[2].splitlines()[1:], page["headers"])
    sent = [item for item in edge_server.items if item["channel"] == "order-7"]
    pushed = [item["formats"]["http-stream"].get("content") for item in sent]
    assert 'event: shipped\ndata: {"by": "post"}\n\n' in pushed
    assert page["body"] == 'event: message\ndata: {"status": "sent"}\n\n'
    assert page["body"] in pushed


def test_start_md_ends_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    ports = dict(zip(("7999", "5561", "6081"), map(str, free_ports()), strict=False))
    for block in blocks("python", ROOT / "docs/start.md"):
        first, _, rest = block.partition("\n")
        (tmp_path / first.removeprefix("# ")).write_text(with_ports(rest, ports))
    _, served, watched, counted = blocks("sh", ROOT / "docs/start.md")
    assert served == "python edge.py\n"
    serving = subprocess.Popen([sys.executable, "edge.py"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        wait_until_served(serving, *map(int, ports.values()))
        with closing(curl(with_ports(watched, ports))) as watching:
            seen = [watching.readline() for _ in range(2)]
            with closing(curl(with_ports(counted, ports))) as counting:
                assert counting.status == 204
            seen += [watching.readline() for _ in range(2)]
    finally:
        serving.terminate()
        serving.wait(20)

    assert b"".join(seen).decode() == blocks("text", ROOT / "docs/start.md")[0]


def wait_until_served(serving: subprocess.Popen[bytes], *ports: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while any(map(is_free, ports)):
        assert serving.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def with_ports(block: str, ports: dict[str, str]) -> str:
    return re.sub("|".join(ports), lambda found: ports[found[0]], block)


def curl(line: str) -> http.client.HTTPResponse:
    """Ask what a line with curl would."""
    found = re.fullmatch(r"curl (?:-N |-X (\w+) )localhost:(\d+)(/\S*)\n", line)
    assert found is not None
    connection = http.client.HTTPConnection("localhost", int(found[2]), timeout=DEADLINE_S)
    connection.request(found[1] or "GET", found[3], headers={"Connection": "close"})
    return connection.getresponse()


# --- the other kinds --------------------------------------------------------------------------


@having("sh")
def test_every_command_is_run_by_a_test(document: Path) -> None:
    for block in blocks("sh", document):
        for line in block.splitlines():
            assert RUN_HERE.match(line) or (ROOT / COMMANDS[line]).exists(), line


@having("sh")
def test_what_is_installed_is_an_extra(document: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = "".join(blocks("sh", document))

    for name, extras in re.findall(r"pip install '([\w-]+)\[([\w,-]+)\]'", lines):
        assert name == project["name"]
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


@having("sh")
def test_varnish_is_started_as_the_tests_start_it(document: Path) -> None:
    for line in "".join(blocks("sh", document)).splitlines():
        if line.startswith("varnishd "):
            assert set(re.findall(r"-p (\S+)", line)) == {
                f"{name}={value}" for name, value in VARNISH_PARAMETERS.items()
            }


@having("ini")
def test_pushpin_is_set_up_as_it_is_shipped(document: Path) -> None:
    shipped = configparser.ConfigParser(interpolation=None)
    shipped.read(EDGE / "pushpin.conf")
    for block in blocks("ini", document):
        shown = configparser.ConfigParser(interpolation=None)
        shown.read_string(block)

        for section in shown.sections():
            assert shown[section].items() <= shipped[section].items()


@having("vcl")
def test_vcl_is_shipped_or_compiles(document: Path, tmp_path: Path) -> None:
    shipped = (EDGE / "default.vcl").read_text()
    parts = [block for block in blocks("vcl", document) if block not in shipped]
    if not parts:
        return
    if (varnishd := shutil.which("varnishd", path="/usr/sbin:" + os.environ["PATH"])) is None:
        skip_outside_ci("varnishd is missing")
    path = tmp_path / "page.vcl"
    path.write_text("vcl 4.1; import std; backend app none;\n" + "".join(map(subroutine, parts)))

    done = subprocess.run(
        [varnishd, "-j", "none", "-C", "-f", path], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def subroutine(part: str) -> str:
    """Return a part that begins with the name of its subroutine, as a comment."""
    first, _, body = part.partition("\n")
    return f"sub vcl_{first.removeprefix('# ')} {{\n{indent(body, '    ')}}}\n"


# What Fastly gives a Compute program, as far as ours uses it; and what comes of two requests.
COMPUTE = """
<script type="importmap">{"imports": {
  "fastly:fanout": "data:text/javascript,export const createFanoutHandoff = (_, backend) => `held by ${backend}`",
  "fastly:cache-override": "data:text/javascript,export class CacheOverride { constructor(mode) { this.mode = mode } }"
}}</script>
<body></body>
<script type="module">
const addEventListener = (_, listener) => { globalThis.listener = listener };
const fetch = (_, {backend, cacheOverride}) => `${backend}, ${cacheOverride.mode}`;
PROGRAM
function ask(method, accept) {
  const request = new Request("https://h/", {method, headers: {Accept: accept}});
  globalThis.listener({request, respondWith: (answer) => { document.body.append(`[${answer}]`) }});
}
ask("GET", "text/event-stream");
ask("GET", "text/html");
ask("POST", "text/event-stream");
</script>
"""  # noqa: E501


@having("js")
def test_compute_hands_off_streams_only(document: Path, tmp_path: Path) -> None:
    if (chromium := shutil.which("chromium")) is None:
        skip_outside_ci("chromium is missing")
    [program] = blocks("js", document)
    imports = "".join(re.findall(r"^import .*\n", program, re.MULTILINE))
    page = COMPUTE.replace("const addEventListener", imports + "const addEventListener", 1)
    (tmp_path / "page.html").write_text(page.replace("PROGRAM", program.replace(imports, "")))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user"]

    done = subprocess.run(
        [chromium, *flags, "--dump-dom", f"file://{tmp_path}/page.html"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "[held by cache][cache, pass][cache, pass]" in done.stdout


# Whose text is compared elsewhere here: an error, and what a client is told.
TEXT_HAS_A_TEST = {"README.md", "docs/observability.md", "docs/start.md", "docs/testing.md"}


@having("text")
def test_every_log_line_is_in_the_code(document: Path) -> None:
    if name_of(document) in TEXT_HAS_A_TEST:
        return
    said = log_messages()
    for line in "".join(blocks("text", document)).splitlines():
        assert any(says(message, line) for message in said), line


def log_messages() -> set[str]:
    """Return what the package logs, with an ellipsis for each value."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(
                        value=ast.Name("logger"), attr="info" | "warning" | "error" | "exception"
                    ),
                    args=[ast.Constant(value=str(text)), *_],
                ):
                    found.add(re.sub(r'"%s"', '"…"', re.sub(r"%[sdr]", "…", text)))
    return found


def says(message: str, line: str) -> bool:
    """Whether a line is a message; its end may be left out, and values may be there."""
    if message == line or (line.endswith("…") and message.startswith(line[:-1])):
        return True
    pattern = re.escape(message).replace("…", "(.+?)")
    found = re.fullmatch(pattern, line) if len(message.replace("…", "")) > 15 else None
    # A value that is no name is a reason, which some other line of the package gives.
    return found is not None and all(value in reasons() for value in found.groups() if " " in value)


@cache
def reasons() -> str:
    names = "fastly VCL"
    return names + "".join(path.read_text() for path in PACKAGE.rglob("*.py"))


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


# --- the settings -----------------------------------------------------------------------------


def test_the_reference_has_every_setting_once() -> None:
    known = {
        *defaults.ROUTE_DEFAULTS,
        *defaults.TOPIC_DEFAULTS,
        *defaults.TOPIC_ONLY,
        *defaults.GLOBAL_DEFAULTS,
        *defaults.GLOBAL_ONLY,
    }

    assert sorted(setting.name for setting in reference.SETTINGS) == sorted(known)


@pytest.mark.parametrize("entry", reference.ENTRIES, ids=lambda entry: entry.title)
def test_the_reference_has_every_key_within(entry: reference.Entry) -> None:
    shared = set(defaults.ROUTE_DEFAULTS) if "..." in entry.keys else set()

    assert entry.known - shared == set(entry.keys) - {"..."}


def test_the_reference_names_every_variable() -> None:
    code = "".join(path.read_text() for path in (PACKAGE / "settings").glob("*.py"))
    prefixes = "GRIP|FASTLY|CLOUDFLARE|CLOUDFRONT|AWS|AKAMAI"
    read = set(re.findall(rf'"((?:{prefixes})_\w+)"', code))

    named = {name for setting in reference.SETTINGS for name in setting.environ}
    assert named == read - {"GRIP_EDGE", DEV_VARIABLE}


def test_the_page_of_the_settings_is_up_to_date() -> None:
    assert settings_page.PAGE.read_text() == settings_page.page()


def test_the_tables_of_the_edges_are_up_to_date() -> None:
    assert edges_page.PAGE.read_text() == edges_page.page(edges_page.PAGE.read_text())


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for path, name in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", document.read_text()):
            target = document.parent / path if path else document
            assert target.exists(), path
            assert not name or name in headings(target), name


def headings(document: Path) -> set[str]:
    """Return what each heading is called in a link, as where the files are read."""
    lines = re.findall(r"^#+ (.*)", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}
