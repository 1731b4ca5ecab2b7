"""Every page in a real browser, served and as a file: drawn whole, without a complaint, without a request that leaves."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest
from playwright.sync_api import Browser, expect

from sonew_perf.dashboard.documents import document
from tests.perf.browser.pages import PHONE, WIDE, Visit, addresses, visiting
from tests.perf.browser.site import Site, served
from tests.perf.dashboard.made import HOSTILE, FakeIndex, content

CHARTS = {"kernel": 2, "roofline": 1, "convergence": 2}
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
        assert not any("plotly" in address for address in visit.requests)  # the library comes with the first chart


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
    text = whole.read_text(encoding="utf-8")
    start = text.index('data-encoding="gzip">') + 400
    cut.write_text(text[:start] + text[text.index("</script>", start) :], encoding="utf-8")

    with visiting(browser, cut.as_uri()) as visit:
        expect(visit.show("#/overview").get_by_role("alert")).to_contain_text("cannot be unpacked")


def test_the_file_shows_tickets_and_changes_none(file_visit: Visit, site: Site) -> None:
    page = file_visit.show("#/regressions")

    tickets = document(site.content, "regressions")
    assert sorted(page.locator("main td .tag:not(.recovered)").all_text_contents()) == sorted(ticket["state"] for ticket in tickets)
    assert page.locator("main select.state").count() == 0
    assert page.get_by_text("This file is a copy").count() == 1


def test_back_leads_to_the_row_that_one_came_from(visit: Visit) -> None:
    page = visit.show("#/kernel?group=none")
    row = page.locator("main tbody tr").nth(50).locator("a")
    row.scroll_into_view_if_needed()
    down = page.evaluate("scrollY")
    row.click()
    page.locator("body[data-ready^='kernel/']:not([data-ready='kernel/'])").wait_for()
    assert page.evaluate("scrollY") == 0
    page.go_back()
    visit.wait("kernel/")

    expect(row).to_be_focused()
    assert down > 0
    assert page.evaluate("scrollY") == down


def test_a_filter_finds_whole_numbers_beginnings_of_words_and_phrases(visit: Visit, site: Site) -> None:
    page = visit.show("#/kernel?filter=65536")
    series = document(site.content, "series")
    counts = {
        "65536": sum(row["elements"] == 65536 for row in series),
        "6553": 0,
        '"band 1"': sum(row["band"] == 1 for row in series),
        "damw": 0,
        "adamw": sum(row["case"].startswith("AdamW") for row in series),
        series[3]["id"]: 1,
    }
    for text, count in counts.items():
        page.locator("[data-filter]").fill(text)
        expect(page.locator("main .found")).to_contain_text(f"{count} of {len(series)}")


def test_groups_count_the_rows_that_are_not_shown_yet(visit: Visit) -> None:
    page = visit.show("#/overview")
    made = """() => {
        const columns = [{ name: "n", title: "N", key: (row) => row, cell: (row) => String(row) }];
        const table = dataTable({ caption: "Made", columns, first: "n", limit: 3, groupOf: (row) => (row % 2 ? "odd" : "even") });
        table.show([1, 2, 3, 4, 5, 6, 7]);
        return [...table.element.querySelectorAll(".group")].map((group) => group.textContent);
    }"""
    assert page.evaluate(made) == ["odd4", "even3"]


def test_lists_are_kept_as_csv(visit: Visit, site: Site) -> None:
    heatmap = document(site.content, "overview")["heatmaps"][0]
    cells = sum(cell is not None for row in heatmap["cells"] for cell in row)
    lists = {"regressions": "regressions", "kernel": "series", "runs": "runs"}
    for place, name in {"overview": "", **lists}.items():
        page = visit.show(f"#/{place}")
        with page.expect_download() as downloaded:
            page.get_by_role("button", name="as CSV").first.click()
        rows = list(csv.DictReader(io.StringIO(Path(downloaded.value.path()).read_text(encoding="utf-8"))))
        assert len(rows) == (len(document(site.content, name)) if name else cells), place


def test_paper_is_light_whatever_was_chosen(visit: Visit) -> None:
    page = visit.show("#/overview")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    page.emulate_media(media="screen")
    page.evaluate("applyTheme()")


def test_new_runs_wait_until_they_are_asked_for(visit: Visit, site: Site) -> None:
    page = visit.show("#/overview")
    first = page.locator(".strip")
    site.revision = {"revision": "made-2", "runs": len(site.content.runs) + 3}
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    pill = page.get_by_role("button", name="3 new runs: load")
    expect(pill).to_be_visible()
    handle = first.element_handle()

    assert page.evaluate("strip => strip.isConnected", handle)
    pill.click()
    expect(pill).to_be_hidden()
    visit.wait("overview/")
    assert not page.evaluate("strip => strip.isConnected", handle)


def test_the_theme_is_the_systems_until_one_is_chosen(visit: Visit) -> None:
    page = visit.show("#/overview")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.keyboard.press("t")  # from the system's to light
    assert page.evaluate(ground) == light
    page.reload()
    visit.wait("overview/")
    assert page.evaluate(ground) == light
    page.goto(f"{visit.address}?theme=dark#/overview")
    visit.wait("overview/")
    assert page.evaluate(ground) == dark
