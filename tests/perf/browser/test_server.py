"""The real server with the project's own records in a real browser."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import uvicorn
from playwright.sync_api import Browser, expect

from sonew_perf.dashboard.server import LOOPBACK, make_app
from tests.perf.browser.pages import visiting

BASELINES = Path(__file__).resolve().parents[3] / "perf" / "baselines"


@contextmanager
def running(store: Path) -> Iterator[str]:
    """The address of the server while it runs."""
    server = uvicorn.Server(uvicorn.Config(make_app(store, BASELINES), log_level="warning", access_log=False, lifespan="on", ws="none"))
    with socket.create_server((LOOPBACK, 0)) as listening:
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def test_the_committed_records_are_drawn(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path) as address, visiting(browser, address) as visit:
        page = visit.show("#/overview")
        expect(page.locator(".heatmap tbody a").first).to_have_text(re.compile(r"\d+\.\d\d"))
        page.locator(".heatmap tbody a").first.click()
        page.locator("body[data-ready^='kernel/']:not([data-ready='kernel/'])").wait_for()
        assert visit.draw() == 2
        for place in ("compare", "kernel", "regressions", "roofline", "runs", "convergence"):
            visit.show(f"#/{place}")
            visit.draw()

        assert visit.complaints == []
        assert page.locator("main .failure").count() == 0
