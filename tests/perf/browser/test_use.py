"""The pages in use, by mouse and by keyboard: every state in the address, every number the view's own."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from playwright.sync_api import Page, expect

from sonew_perf.dashboard.documents import document
from tests.perf.browser.pages import Visit, changed_series
from tests.perf.browser.site import Site


def fragment(page: Page) -> str:
    return page.url.partition("#")[2]


def test_a_cell_of_the_heatmap_leads_to_its_series(visit: Visit, site: Site) -> None:
    heatmap = document(site.content, "overview")["heatmaps"][0]
    cell = heatmap["cells"][1][2]
    page = visit.show("#/overview")
    cells = page.locator(".heatmap").first.locator("tbody tr").nth(1).locator("td").nth(2)

    expect(cells).to_have_text(f"{cell['ratio']:.2f}")
    cells.locator("a").click()
    visit.wait(f"kernel/{cell['series']}")
    assert fragment(page) == f"/kernel/{cell['series']}?run={cell['run']}"
    page.go_back()
    visit.wait("overview/")
    expect(page.locator("h1")).to_be_focused()


def test_the_heatmap_is_walked_by_arrows(visit: Visit, site: Site) -> None:
    heatmap = document(site.content, "overview")["heatmaps"][0]
    page = visit.show("#/overview")
    grid = page.locator(".heatmap").first
    grid.locator("a[tabindex='0']").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)

    expect(grid.locator("tbody tr").nth(1).locator("td").nth(1).locator("a")).to_be_focused()
    page.keyboard.press("Enter")
    visit.wait(f"kernel/{heatmap['cells'][1][1]['series']}")


def test_keys_filter_walk_and_open_the_rows(visit: Visit) -> None:
    page = visit.show("#/overview")
    page.keyboard.press("g")
    page.keyboard.press("k")
    visit.wait("kernel/")
    page.keyboard.press("/")
    page.keyboard.type("peak memory")
    page.keyboard.press("Escape")
    expect(page.locator("main .found")).to_contain_text("1 of ")
    assert fragment(page) == "/kernel?filter=peak+memory"
    page.keyboard.press("j")
    page.keyboard.press("Enter")

    expect(page.locator("h1")).to_have_text("SONew band 1: step, peak memory")


def test_the_keys_are_listed_on_request(visit: Visit) -> None:
    page = visit.show("#/overview")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


def test_a_comparison_shows_what_changed_and_the_rest_on_request(visit: Visit) -> None:
    page = visit.show("#/compare/20261101T120000Z-ab")
    words = page.locator("main tbody tr .pill")
    expect(words).to_have_text(["▲Slower", "▼Faster", "∅No data"])
    expect(page.locator(".hidden-rows")).to_contain_text("5 hidden (3 same, 2 unsure)")
    page.get_by_role("button", name="Show all").click()

    expect(words).to_have_count(8)
    assert fragment(page) == "/compare/20261101T120000Z-ab?all=1"
    page.go_back()
    expect(words).to_have_count(3)
    page.locator(".counts .unsure a").click()
    expect(words).to_have_text(["?Unsure", "?Unsure"])


def test_a_row_of_a_comparison_opens_by_keyboard_and_sorts(visit: Visit) -> None:
    page = visit.show("#/compare/20261101T120000Z-ab?all=1")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator(".unfolded")).to_contain_text("the head was slower in 33 of 33")
    expect(page.locator(".unfold").first).to_have_attribute("aria-expanded", "true")
    page.get_by_role("columnheader", name="Base", exact=False).first.get_by_role("button").click()

    heading = page.locator("main thead th[aria-sort]")
    expect(heading).to_have_text("Base")
    expect(heading).to_have_attribute("aria-sort", "descending")
    expect(heading.locator("button")).to_be_focused()
    expect(page.locator("main tbody tr").first.locator("td.number").nth(1)).to_have_text("14.8 ms")
    assert fragment(page).endswith("sort=-base")


def test_the_history_says_where_its_axis_starts(visit: Visit, site: Site) -> None:
    series = changed_series(site)
    runs = document(site.content, f"series/{series}")["points"]["run"]
    page = visit.show(f"#/kernel/{series}")
    visit.draw()
    lowest = "document.querySelector('.chart').layout.yaxis.range[0]"
    assert page.evaluate(lowest) == 0
    expect(page.locator(".zoom-note")).to_be_hidden()
    visit.show(f"#/kernel/{series}?from={runs[30]}&to={runs[50]}")

    expect(page.locator(".zoom-note")).to_contain_text("Runs 31 to 51 of 60; the axis does not start at 0")
    assert page.evaluate(lowest) > 6
    page.get_by_role("button", name="Show all").click()
    expect(page.locator(".zoom-note")).to_be_hidden()
    page.get_by_role("button", name="÷ AdamW fused").click()
    assert fragment(page) == f"/kernel/{series}?show=ratio"
    expect(page.locator(".chart .ytitle").first).to_have_text("time ÷ AdamW fused (\N{MULTIPLICATION SIGN})")


def test_the_numbers_of_a_chart_are_the_views(visit: Visit, site: Site) -> None:
    view = document(site.content, f"series/{changed_series(site)}")
    page = visit.show(f"#/kernel/{changed_series(site)}")
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Download History as CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(downloaded.value.path()).read_text(encoding="utf-8"))))

    assert downloaded.value.suggested_filename == f"history-{changed_series(site)}.csv"
    assert [float(row["median (ms)"]) for row in reversed(rows)] == view["points"]["median"]
    assert [row["run"] for row in reversed(rows)] == view["points"]["run"]
    assert [float(row["ratio to copy"]) for row in reversed(rows)] == view["points"]["ratio"]["copy"]


def test_pictures_can_be_kept(visit: Visit) -> None:
    page = visit.show("#/roofline")
    visit.draw()
    starts = {"SVG": b"<svg", "PNG": b"\x89PNG"}
    for kind, start in starts.items():
        with page.expect_download() as downloaded:
            page.get_by_role("button", name=f"Download Roofline as {kind}").click()

        assert Path(downloaded.value.path()).read_bytes().startswith(start)
    page = visit.show("#/compare/20261101T120000Z-ab")
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Download the comparison as SVG").click()
    assert "SONew band 2 · step" in Path(downloaded.value.path()).read_text(encoding="utf-8")


def test_two_runs_are_set_beside_each_other(visit: Visit, site: Site) -> None:
    series = changed_series(site)
    runs = document(site.content, f"series/{series}")["points"]["run"]
    page = visit.show(f"#/kernel/{series}?run={runs[-1]}&against={runs[-25]}")

    expect(page.locator(".differences .differs th")).to_have_text(["label", "local changes", "source hash"])
    page.get_by_label("Against").select_option(runs[-2])
    expect(page.locator(".differences .differs th").filter(has_text="source hash")).to_have_count(0)
    assert f"against={runs[-2]}" not in fragment(page)  # what is chosen by itself is not written down


def test_a_ticket_changes_in_the_server(visit: Visit, site: Site) -> None:
    ticket = next(row for row in document(site.content, "regressions") if row["state"] == "open")
    page = visit.show(f"#/regressions?state=open&filter={ticket['id']}")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator(".unfolded code")).to_have_text(ticket["bisect"])
    page.locator(".unfolded textarea").fill("the new default <b>segment</b>")
    page.get_by_role("button", name="Keep the note").click()
    expect(page.locator("main td .note")).to_have_text("the new default <b>segment</b>")
    page.get_by_label(f"State of {ticket['title']}").select_option("accepted")

    expect(page.locator("main tbody")).to_contain_text("No ticket is left by this filter.")
    assert site.told == {ticket["id"]: {"state": "accepted", "note": "the new default <b>segment</b>"}}


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


def test_two_runs_environments_are_compared(visit: Visit, site: Site) -> None:
    runs = document(site.content, "runs")
    gpu = next(run for run in runs if run["details"]["device"] == "Example GPU")
    page = visit.show("#/runs")
    page.locator(f"[data-pick='run-{runs[0]['id']}']").check()
    page.locator(f"[data-pick='against-{gpu['id']}']").check()

    row = page.locator(".differences tr").filter(has=page.get_by_role("rowheader", name="driver"))
    expect(row.locator("td")).to_have_text(["\N{EN DASH}", "580.1"])
    assert fragment(page) == f"/runs?run={runs[0]['id']}&against={gpu['id']}"
    expect(page.locator(f"[data-pick='against-{gpu['id']}']")).to_be_focused()


def test_losses_are_drawn_against_what_is_asked(visit: Visit, site: Site) -> None:
    runs = document(site.content, "convergence")["tasks"][0]["runs"]
    page = visit.show("#/convergence")
    visit.draw()
    traces = "document.querySelector('.chart').data.length"
    assert page.evaluate(traces) == sum(run["best"] for run in runs)
    page.get_by_label("Every learning rate").check()
    assert page.evaluate(traces) == len(runs)
    page.get_by_role("button", name="Seconds").click()
    first = runs[0]
    seconds = page.evaluate("document.querySelector('.chart').data[0].x[1]")
    assert abs(seconds - first["steps"][1] * first["seconds_per_step"]) < 1e-9
    page.get_by_role("button", name="Log").click()
    assert page.evaluate("document.querySelector('.chart').layout.yaxis.type") == "log"
