"""The built site in Chromium: pages, search, the form, a telephone's width."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.browser import Browser, needs_chromium, started_browser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def site(built: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built))) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from started_browser(tmp_path_factory.mktemp("profile"))


@needs_chromium
def test_navigation_and_search(browser: Browser, site: str) -> None:
    browser.open(site + "langchain/")
    browser.click(".md-nav__link[href*=networking]")
    browser.wait(lambda: "networking" in browser.run("return location.href"), "the next page")
    browser.type(".md-search__input", "proxy")
    browser.wait_for(".md-search-result__list", "proxy")
    assert browser.console() == []


@needs_chromium
def test_the_form_writes_code(browser: Browser, site: str) -> None:
    browser.open(site + "form/#lang=ja")
    browser.wait_for("#form", "モデル名称")
    assert 'model="llava"' in browser.text("#code")
    assert browser.console() == []


@needs_chromium
@pytest.mark.parametrize("page", ["langchain/", "networking/", "comparison/", "form/"])
def test_a_telephone_shows_all(browser: Browser, site: str, page: str) -> None:
    browser.open(site + page, width=390, height=844)
    browser.wait(lambda: browser.text("h1"), "the page")
    assert browser.is_readable()
