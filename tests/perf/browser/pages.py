"""Going through the pages with a browser, and what it complained about on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page

from sonew_perf.dashboard.documents import document
from tests.perf.browser.site import Site

WAIT_MS: Final = 10_000  # for what should be there at once: long only on a machine that does much else
WIDE, PHONE = (1280, 900), (360, 740)


class Visit:
    """A tab, and what happened in it.

    Attributes:
        page: the tab. complaints: console errors, warnings and exceptions. requests: addresses that were asked for.
        dialogs: texts of boxes.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("dialog", self._dismiss)
        page.set_default_timeout(WAIT_MS)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def show(self, place: str) -> Page:
        """Go to a hash and wait until its page stands."""
        if self.page.url == "about:blank":
            self.page.goto(f"{self.address}{place}")
        else:
            self.page.evaluate("hash => { location.hash = hash; }", place)
        path = place.removeprefix("#/").partition("?")[0]
        return self.wait(path if "/" in path else f"{path}/")

    def wait(self, path: str) -> Page:
        """Until the page of a path stands, "kernel/1234" for instance."""
        self.page.locator(f"body[data-ready='{path}']").wait_for()
        return self.page

    def draw(self) -> int:
        """Bring every chart into view, wait until it is drawn, and count them."""
        charts = self.page.locator(".chart").all()
        for chart in charts:
            chart.scroll_into_view_if_needed()
            chart.locator("svg.main-svg").first.wait_for()
        return len(charts)


@contextmanager
def visiting(
    browser: Browser, address: str, *, size: tuple[int, int] = WIDE, offline: bool = False, theme: str = "light"
) -> Iterator[Visit]:
    """A fresh tab with nothing kept from others."""
    scheme: Any = theme
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce", accept_downloads=True
    )
    context.set_offline(offline)
    try:
        yield Visit(context.new_page(), address)
    finally:
        context.close()


def changed_series(site: Site) -> str:
    """The series that is made slower from some run on."""
    plain = {"kernel": "step", "case": "SONew band 1", "elements": 4194304, "measure": "time", "variant": ""}
    rows = (row for row in document(site.content, "series") if row["change"] is not None)
    return str(next(row["id"] for row in rows if {name: row[name] for name in plain} == plain))


def addresses(site: Site) -> dict[str, str]:
    """The hash of each page by its name."""
    runs = [run.id for run in site.content.runs]
    return {
        "overview": "#/overview",
        "comparisons": "#/compare",
        "compare": "#/compare/20261101T120000Z-ab",
        "kernels": "#/kernel?filter=step+64",
        "kernel": f"#/kernel/{changed_series(site)}",
        "regressions": "#/regressions",
        "roofline": "#/roofline",
        "runs": f"#/runs?filter=nightly+29&run={runs[-1]}&against={runs[20]}",
        "convergence": "#/convergence",
    }
