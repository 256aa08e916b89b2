"""The site of the documents is built without a warning, and its links lead somewhere."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """What a page links to and what can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.names: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.names |= {found[name] for name in ("id", "name") if name in found}
        self.links |= {found[name] for name in ("href", "src") if name in found}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # As `make docs` does.
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs"]
    done = subprocess.run(
        [*build, "-d", folder / "doctrees", ".", folder / "docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return folder / "docs"


def test_each_document_is_a_page_that_the_contents_name(site: Path) -> None:
    documents = [path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md")]
    contents = Page(site / "docs/index.html").links

    assert all((site / document.with_suffix(".html")).exists() for document in documents)
    named = {document.with_suffix(".html").name for document in documents} - {"index.html"}
    assert named <= contents


def test_no_link_within_is_dead(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}

    dead = []
    for path, page in pages.items():
        for link in page.links:
            split = urlsplit(link)
            if split.scheme or split.netloc:
                continue
            target = (path.parent / unquote(split.path)).resolve() if split.path else path
            fragment = unquote(split.fragment)
            is_there = target.exists() and not (
                fragment and target in pages and fragment not in pages[target].names
            )
            if not is_there:
                dead.append(f"{path.relative_to(site)}: {link}")
    assert not dead


def test_who_opens_the_folder_is_led_to_the_first_page(site: Path) -> None:
    assert 'url=docs/index.html"' in (site / "index.html").read_text()


def test_no_page_needs_another_host(site: Path) -> None:
    for path in site.rglob("*.html"):
        tags = path.read_text().split("<")
        loaded = [tag for tag in tags if tag.startswith(("script", "link ", "img"))]

        assert not [tag for tag in loaded if '="http' in tag]
