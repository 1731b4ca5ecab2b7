"""A browser for each module, since its event loop is in the way of other tests; a made dashboard, served and as a file, for all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from sonew_perf.dashboard.content import Content
from tests.perf.browser.pages import Visit, visiting
from tests.perf.browser.site import Site, exported, served
from tests.perf.dashboard.demo import store


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert path is not None, "These tests drive a real browser: install Debian's package chromium, or name one in CHROMIUM."
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def made() -> Content:
    return store()


@pytest.fixture(scope="module")
def site(made: Content) -> Iterator[Site]:
    found = Site(made)
    with served(found) as found.address:
        yield found


@pytest.fixture(scope="session")
def file(made: Content, tmp_path_factory: pytest.TempPathFactory) -> str:
    return exported(made, tmp_path_factory.mktemp("exported") / "dashboard.html")


@pytest.fixture(scope="module")
def tab(browser: Browser, site: Site) -> Iterator[Visit]:
    """One tab with the served pages for a whole module: the library that draws takes a second to load."""
    with visiting(browser, site.address) as found:
        yield found


@pytest.fixture(scope="module")
def file_tab(browser: Browser, file: str) -> Iterator[Visit]:
    """One tab with the file, without a network."""
    with visiting(browser, file, offline=True) as found:
        yield found


@pytest.fixture
def visit(tab: Visit) -> Iterator[Visit]:
    """The served pages; nothing may go wrong in them."""
    yield tab
    assert tab.complaints == []
    assert tab.dialogs == []


@pytest.fixture
def file_visit(file_tab: Visit) -> Iterator[Visit]:
    """The file; nothing may go wrong in it."""
    yield file_tab
    assert file_tab.complaints == []
    assert file_tab.dialogs == []
