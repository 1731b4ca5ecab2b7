"""The pages in use, by mouse and by keyboard: every state in the address, every number the view's own."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from sonew_perf.dashboard.documents import document
from tests.perf.browser.pages import Visit, changed_series
from tests.perf.browser.site import AUTHOR, Site


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
    expect(cells.locator("a")).to_be_focused()


def test_tables_beneath_charts_sort(visit: Visit, site: Site) -> None:
    page = visit.show("#/roofline")
    device = document(site.content, "roofline")["devices"][0]
    page.get_by_role("columnheader", name="Time").get_by_role("button").click()
    expect(page.locator("main thead th[aria-sort]")).to_have_text("Time")
    slowest = max(device["points"], key=lambda point: point["ms"])
    expect(page.locator("main tbody th a").first).to_have_attribute("href", f"#/kernel/{slowest['series']}")
    watchers = page.evaluate("shown.watchers.length")
    page.get_by_label("Run").select_option(index=1)
    page.get_by_label("Run").select_option(index=0)
    assert page.evaluate("shown.watchers.length") == watchers

    many = next(row for row in document(site.content, "series") if row["band"] == 2 and row["kernel"] == "step" and row["change"])
    changes = document(site.content, f"series/{many['id']}")["changes"]
    page = visit.show(f"#/kernel/{many['id']}")
    rows = page.locator("section[aria-labelledby='changes'] tbody .change")
    first = rows.first.text_content()
    page.locator("section[aria-labelledby='changes']").get_by_role("button", name="Since").click()
    assert len(changes) > 1
    expect(rows.first).not_to_have_text(first or "")


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


def test_a_share_of_the_copy_is_of_the_copy_in_the_same_run(visit: Visit, site: Site) -> None:
    series = changed_series(site)
    points = document(site.content, f"series/{series}")["points"]
    page = visit.show(f"#/kernel/{series}?show=share")
    visit.draw()
    drawn = page.evaluate("document.querySelector('.chart').data.find((trace) => trace.text).y")
    assert drawn == pytest.approx([100 * gbps / copy for gbps, copy in zip(points["gbps"], points["copy_gbps"], strict=True)])
    assert len(set(points["copy_gbps"])) > 10
    page = visit.show(f"#/kernel/{series}?show=nonsense")
    expect(page.get_by_role("group", name="What is shown").locator("[aria-pressed=true]")).to_have_text("Time")


def test_a_double_click_shows_all_and_picks_no_run(visit: Visit, site: Site) -> None:
    series = changed_series(site)
    runs = document(site.content, f"series/{series}")["points"]["run"]
    page = visit.show(f"#/kernel/{series}?from={runs[30]}&to={runs[50]}")
    visit.draw()
    at = """() => {
        const chart = document.querySelector(".chart"), box = chart.getBoundingClientRect(), { xaxis, yaxis } = chart._fullLayout;
        const line = chart.data.find((trace) => trace.text);
        return [box.x + xaxis._offset + xaxis.d2p(41), box.y + yaxis._offset + yaxis.d2p(line.y[40])];
    }"""
    page.locator(".chart").first.scroll_into_view_if_needed()
    x, y = page.evaluate(at)
    page.mouse.move(x, y)
    page.mouse.dblclick(x, y)
    expect(page.locator(".zoom-note")).to_be_hidden()
    assert fragment(page) == f"/kernel/{series}"


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


def test_a_note_outlives_sorting_and_a_ticket_that_leaves_hands_on_the_focus(visit: Visit, site: Site) -> None:
    tickets = document(site.content, "regressions")
    recovered = [row for row in tickets if row["state"] == "open" and row["recovered"]]
    still = [row for row in tickets if row["state"] == "open" and not row["recovered"]]
    visit.show("#/overview").evaluate("openedTickets.clear()")  # of an earlier test
    page = visit.show("#/regressions")
    assert len(recovered) > 0
    expect(page.get_by_role("button", name=f"Recovered {len(recovered)}")).to_be_visible()
    expect(page.locator("main tbody tr").last).to_contain_text(f"recovered in {recovered[-1]['recovered']}")
    page.get_by_role("button", name=f"Open {len(still)}").click()
    expect(page.locator("main select.state")).to_have_count(len(still))
    page.locator(".unfold").first.click()
    page.locator(".unfolded textarea").fill("not kept yet")
    page.get_by_role("columnheader", name="Since").get_by_role("button").click()
    expect(page.locator(".unfolded textarea")).to_have_value("not kept yet")
    first, second = (page.locator("main select.state").nth(place).get_attribute("data-ticket") for place in (0, 1))
    page.locator(f"select[data-ticket='{first}']").select_option("fixed")

    expect(page.locator(f"select[data-ticket='{second}']")).to_be_focused()
    expect(page.get_by_role("button", name=f"Open {len(still) - 1}")).to_be_visible()
    page.get_by_role("button", name="Fixed 1").click()
    expect(page.locator(".unfolded")).to_contain_text(AUTHOR)  # the server's row


def test_a_run_opens_in_its_card_and_the_list_stays_as_it_was(visit: Visit, site: Site) -> None:
    run = document(site.content, "runs")[0]
    page = visit.show("#/runs?sort=-load&filter=nightly")
    row = page.locator("main tbody tr").first.locator("a")
    row.click()
    expect(page.locator("#environment")).to_be_focused()
    assert fragment(page).startswith("/runs?sort=-load&filter=nightly&run=")
    page.keyboard.press("/")
    page.locator("[data-filter]").fill(run["id"])
    expect(page.locator("main tbody tr")).to_have_count(1)


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
