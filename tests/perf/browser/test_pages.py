"""Every page in a real browser, served and as a file: drawn whole, without a complaint, without a request that leaves."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest
from playwright.sync_api import Browser, expect

from sonew_perf.dashboard.documents import document
from sonew_perf.dashboard.page import plotly
from tests.perf.browser.pages import PHONE, WIDE, Visit, addresses, visiting
from tests.perf.browser.site import Site, served
from tests.perf.dashboard.made import HOSTILE, FakeIndex, content

CHARTS = {"kernel": 2, "roofline": 1, "convergence": 1}
HEADINGS = {
    "overview": "Overview",
    "comparisons": "Compare",
    "compare": "main~3 against main",
    "kernels": "Kernels",
    "kernel": "SONew band 1: step",
    "regressions": "Regressions",
    "roofline": "Roofline",
    "runs": "Runs",
    "convergence": "Convergence",
}
EMPTY = {
    "overview": "make bench",
    "compare": "sonew-perf compare main",
    "kernel": "make bench",
    "regressions": "sonew-perf run",
    "roofline": "make bench",
    "runs": "make bench",
    "convergence": "sonew-perf train",
}


def go_through(visit: Visit, site: Site) -> None:
    for name, place in addresses(site).items():
        page = visit.show(place)
        expect(page.locator("h1")).to_have_text(HEADINGS[name])
        expect(page).to_have_title(f"{HEADINGS[name]} · SONew")
        expect(page.locator("header a[aria-current=page]")).to_have_count(1)
        assert visit.draw() == CHARTS.get(name, 0), name
        assert page.locator("main img, main script, main iframe").count() == 0, name


def test_the_served_pages_are_drawn_without_a_complaint_or_a_request_elsewhere(visit: Visit, site: Site) -> None:
    go_through(visit, site)

    assert [address for address in visit.requests if not address.startswith((site.address, "data:", "blob:"))] == []


def test_the_file_is_drawn_without_a_network(file_visit: Visit, site: Site, file: str) -> None:
    go_through(file_visit, site)

    assert [address for address in file_visit.requests if not address.startswith(("data:", "blob:"))] == [file]


def test_no_page_is_wider_than_a_phone(visit: Visit, site: Site) -> None:
    visit.page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    for name, place in addresses(site).items():
        page = visit.show(place)
        for row in page.locator(".unfold").all()[:1]:
            row.click()
        visit.draw()

        assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0], name
    visit.page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})


def test_names_with_markup_are_text(visit: Visit) -> None:
    page = visit.show("#/kernel?filter=onerror")

    expect(page.locator("main tbody th a")).to_have_text(f"SONew band 1 {HOSTILE}")
    page.locator("main tbody th a").click()
    page.locator("body[data-ready^='kernel/']:not([data-ready='kernel/'])").wait_for()
    visit.draw()
    page.locator("figure .numbers summary").first.click()

    expect(page.locator("h1")).to_have_text(f"SONew band 1 {HOSTILE}: step")
    expect(page.locator("figure thead th").filter(has_text="ratio to")).to_have_text(f"ratio to {HOSTILE}")
    assert page.locator("img").count() == 0


def test_an_empty_store_says_what_to_run(browser: Browser) -> None:
    with served(Site(content(FakeIndex()))) as address, visiting(browser, address) as visit:
        for place, says in EMPTY.items():
            expect(visit.show(f"#/{place}").locator("main .empty code").first).to_have_text(says)
        assert visit.complaints == []


def test_a_page_that_does_not_exist_leads_back(visit: Visit) -> None:
    page = visit.show("#/nowhere")

    page.get_by_role("link", name="Go to the overview").click()
    visit.wait("overview/")
    expect(page.locator("h1")).to_have_text("Overview")


def test_a_view_that_fails_can_be_asked_for_again(tab: Visit, site: Site) -> None:
    site.broken.add("roofline")
    tab.show("#/overview").evaluate("kept.clear()")
    page = tab.show("#/roofline")
    expect(page.get_by_role("alert")).to_contain_text("This view could not be made.")
    site.broken.clear()
    page.get_by_role("button", name="Try again").click()

    expect(page.locator("figure h2")).to_have_text("Roofline")
    assert [complaint for complaint in tab.complaints if "500" not in complaint] == []
    tab.complaints.clear()


def test_a_series_that_is_gone_is_said_to_be(tab: Visit, file_visit: Visit) -> None:
    expect(tab.show("#/kernel/ffffffffffff").get_by_role("alert")).to_contain_text("has no series 'ffffffffffff'")
    expect(file_visit.show("#/kernel/ffffffffffff").get_by_role("alert")).to_contain_text("does not hold series/ffffffffffff")
    assert [complaint for complaint in tab.complaints if "404" not in complaint] == []
    tab.complaints.clear()


def test_a_file_cut_off_says_so(browser: Browser, file: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole, cut = Path(url2pathname(urlparse(file).path)), tmp_path_factory.mktemp("cut") / "cut.html"
    text = whole.read_text(encoding="utf-8").replace(plotly(), "")  # nothing is drawn, so the library need not load
    start = text.index('data-encoding="gzip">') + 400
    cut.write_text(text[:start] + text[text.index("</script>", start) :], encoding="utf-8")

    with visiting(browser, cut.as_uri()) as visit:
        expect(visit.show("#/overview").get_by_role("alert")).to_contain_text("cannot be unpacked")


def test_the_file_shows_tickets_and_changes_none(file_visit: Visit, site: Site) -> None:
    page = file_visit.show("#/regressions")

    tickets = document(site.content, "regressions")
    assert sorted(page.locator("main td .tag").all_text_contents()) == sorted(ticket["state"] for ticket in tickets)
    assert page.locator("main select.state").count() == 0
    assert page.get_by_text("This file is a copy").count() == 1
