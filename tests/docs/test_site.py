"""The site as it is built: strictly, and without a reason to ask another host for anything."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.contrast import contrast
from tests.pages import DOCS, ROOT


class Fetches(HTMLParser):
    """What a page makes a browser fetch: everything but the links that a reader may follow."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def is_outside(address: str) -> bool:
    return re.match(r"(https?:)?//", address) is not None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # without --quiet, under which mkdocs lets warnings pass
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site: Path):
    pages = {page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")}
    assert pages <= {page.relative_to(site) for page in site.rglob("*.html")}
    assert (site / "tutorials" / "first-optimization.ipynb").is_file()


def test_no_page_fetches_anything_from_elsewhere(site: Path):
    assert Fetches('<a href="https://a.b"></a><img src="//a.b/c.png">').found == ["//a.b/c.png"]
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert Fetches(text).found
        assert not [address for address in Fetches(text).found if is_outside(address)], page
        assert 'class="mermaid"' not in text  # would be drawn by a script from elsewhere
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", text), sheet


def test_every_page_fits_phones_and_follows_the_system_to_dark(site: Path):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert '<html lang="en"' in text
        assert '<meta name="viewport" content="width=device-width,initial-scale=1">' in text
        assert re.search(r"<title>[^<]+</title>", text)
        assert 'data-md-color-media="(prefers-color-scheme)"' in text
        (icon,) = re.findall(r'rel="icon" href="([^"]+)"', text)
        assert ((site if icon.startswith("/") else page.parent) / icon.lstrip("/")).is_file()
        for table in re.findall(r"<table[^>]*>", text):
            assert table == "<table>"  # the theme puts what has no class into a box that scrolls


def test_links_and_the_header_stand_out_from_their_ground():
    style = (DOCS / "site.css").read_text(encoding="utf-8")
    (primary,) = re.findall(r"--md-primary-fg-color: (#\w+)", style)
    for ground in ("#ffffff", "#f5f5f5"):  # of a page, and of code on it
        assert contrast(primary, ground) >= 4.5


def test_docstrings_and_their_examples_are_laid_out(site: Path):
    text = (site / "reference" / "api.html").read_text(encoding="utf-8")
    assert 'id="dspy_diffusion_infill.optimizer.DiffusionInfill.compile"' in text
    assert "<p>A window of the instructions is masked inside the program's own prompt" in text
    assert re.search(r'<span class="gp">&gt;&gt;&gt; ?</span>', text)
    assert "<blockquote>\n<blockquote>" not in text  # what >>> would be outside of code


def test_a_block_that_does_not_run_says_so_to_readers(site: Path):
    assert "Not run: needs a served model" in (site / "index.html").read_text(encoding="utf-8")
