"""What axe says of the pages: nothing serious, in both themes."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.perf.browser.pages import PHONE, WIDE, Visit, addresses, visiting
from tests.perf.browser.site import Site

LOADED = Axe(axe_script="0")  # the document changes no page for another: the script is loaded once, below


def serious(page: Page, name: str, **options: object) -> list[str]:
    """Serious and critical findings, with what they were found on. The inside of a chart is an image, whose text stands beside it."""
    asked = {"resultTypes": ["violations"], "elementRef": False, **options}
    said = LOADED.run(page, context={"exclude": [[".main-svg"]]}, options=asked).response["violations"]
    bad = [each for each in said if each["impact"] in {"serious", "critical"}]
    return [f"{name}: {each['id']}: {node['html'][:200]}" for each in bad for node in each["nodes"][:3]]


def findings(visit: Visit, site: Site, theme: str = "light") -> list[str]:
    """On every page: by every rule in the first theme, by the rules of colours in the dark one too."""
    found: list[str] = []
    for name, place in addresses(site).items():
        page = visit.show(place)
        for row in page.locator(".unfold").all()[:1]:
            row.click()
        visit.draw()
        if not found and name == "overview":
            page.evaluate(Axe().axe_script)
        found += serious(page, f"{name}, {theme}")
        if theme == "light":
            page.emulate_media(color_scheme="dark")
            found += serious(page, f"{name}, dark", runOnly=["color-contrast", "link-in-text-block"])
            page.emulate_media(color_scheme="light")
    return found


def test_axe_finds_nothing_serious_on_the_served_pages(visit: Visit, site: Site) -> None:
    assert findings(visit, site) == []


@pytest.mark.full
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_axe_finds_nothing_serious_in_the_file(browser: Browser, site: Site, file: str, theme: str, size: tuple[int, int]) -> None:
    with visiting(browser, file, theme=theme, size=size) as visit:
        assert findings(visit, site, theme) == []
