"""`python -m tests.perf.browser.screenshots FOLDER [NAME…]`: a picture of every page, light, dark and as wide as a phone."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from tests.perf.browser.pages import PHONE, WIDE, addresses, changed_series, visiting
from tests.perf.browser.site import Site, served
from tests.perf.dashboard.demo import store
from tests.perf.dashboard.made import FakeIndex, content


def pictured(site: Site) -> dict[str, str]:
    """Every page, and some of them in more than one state."""
    runs, series = [run.id for run in site.content.runs], changed_series(site)
    return addresses(site) | {
        "compare-all": "#/compare/20261101T120000Z-ab?all=1",
        "kernels-all": "#/kernel",
        "kernel-zoom": f"#/kernel/{series}?show=ratio&from={runs[-26]}&to={runs[-6]}",
        "runs-all": "#/runs",
        "convergence-bytes": "#/convergence?x=bytes&all=1",
        "unknown": "#/nowhere",
    }


EMPTY: Final = ("overview", "kernels-all", "comparisons", "regressions", "roofline", "runs-all", "convergence")  # without any data


def shoot(browser: Browser, address: str, pages: dict[str, str], folder: Path, label: str) -> None:
    """Pictures of the pages in every theme and width."""
    for look, size in {"light": WIDE, "dark": WIDE, "phone": PHONE}.items():
        with visiting(browser, address, size=size, theme="dark" if look == "dark" else "light") as visit:
            for name, place in pages.items():
                page = visit.show(place)
                if name in {"compare", "regressions"} and page.locator(".unfold").count():
                    page.locator(".unfold").first.click()
                visit.draw()
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=folder / f"{label}{name}-{look}.png", full_page=True)
            print("\n".join(visit.complaints))


def main(folder: Path, wanted: list[str]) -> None:
    """Write the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    made, empty = Site(store()), Site(content(FakeIndex()))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        pages = pictured(made)
        with served(made) as address:
            shoot(browser, address, {name: place for name, place in pages.items() if not wanted or name in wanted}, folder, "")
        if not wanted:
            with served(empty) as address:
                shoot(browser, address, {name: place for name, place in pages.items() if name in EMPTY}, folder, "empty-")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
