"""The page of training in use: every line, choice and table is the view's own."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from sonew_perf.dashboard.documents import document
from tests.perf.browser.pages import Visit
from tests.perf.browser.site import Site


def drawn(page: Page, of: str = "Training loss") -> list[dict[str, Any]]:
    """The traces of a chart, by its title."""
    chart = page.locator("figure", has=page.get_by_role("heading", name=of)).locator(".chart")
    found: list[dict[str, Any]] = chart.evaluate("chart => chart.data.map(({ name, x, y, fill }) => ({ name, x, y, fill }))")
    return found


def curves(page: Page) -> list[dict[str, Any]]:
    """The lines of the chart of losses; ranges over the seeds and marks have no name."""
    return [trace for trace in drawn(page) if trace.get("name")]


def test_losses_are_drawn_against_what_is_asked(visit: Visit, site: Site) -> None:
    race = document(site.content, "convergence")["races"][0]
    best = [line for line in race["lines"] if line["best"]]
    page = visit.show("#/convergence")
    visit.draw()
    assert [(trace["name"], trace["y"]) for trace in curves(page)] == [(line["label"], line["loss"]) for line in best]
    assert len([trace for trace in drawn(page) if trace.get("fill") == "toself"]) == len(best)  # the range over the seeds
    page.get_by_label("Every setting").check()
    assert len(curves(page)) == len(race["lines"])
    page.get_by_label("Every setting").uncheck()
    page.get_by_role("button", name="Wall time", exact=True).click()
    minutes = curves(page)[0]["x"][1]
    assert abs(minutes - best[0]["steps"][1] * best[0]["seconds_per_step"] / 60) < 1e-9
    page.get_by_role("button", name="The end").click()
    low, high = page.evaluate("document.querySelector('.chart').layout.yaxis.range")
    ends = [line["loss"][-1] for line in best]
    assert low < min(ends) < max(ends) < high < min(line["loss"][9] for line in best)
    page.get_by_role("button", name="Log").click()
    assert page.evaluate("document.querySelector('.chart').layout.yaxis.type") == "log"
    page.get_by_role("group", name="Against").get_by_role("button", name="State").click()
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Download Training loss as CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(downloaded.value.path()).read_text(encoding="utf-8"))))
    assert [(row["method"], float(row["final loss"])) for row in rows] == [(line["label"], line["final"]) for line in best]


def test_a_race_is_chosen_and_a_method_left_out_of_its_chart(visit: Visit, site: Site) -> None:
    race, older = document(site.content, "convergence")["races"]
    page = visit.show("#/convergence?filter=")
    visit.draw()
    page.locator(".key button", has_text="Adam").click()
    assert {trace["name"] for trace in curves(page)} == {"SONew band 1", "SONew band 4"}
    expect(page.locator(".key button[aria-pressed=false]")).to_have_text(["Adam"])
    row = page.locator("section", has=page.get_by_role("heading", name="The race")).locator("tbody tr", has_text="SONew band 4")
    (line,) = (line for line in race["lines"] if line["label"] == "SONew band 4" and line["best"])
    expect(row.locator("td").nth(3)).to_have_text(f"{100 * line['shares']['steps']['mean']:.0f} %")
    page.get_by_role("combobox", name="Race").select_option(older["id"])
    assert f"race={older['id']}" in page.url
    assert {trace["name"] for trace in curves(page)} == {"SONew band 1", "AdamW"}
    expect(page.get_by_role("heading", name="Columns that fell back")).to_have_count(0)  # nobody counted


def test_columns_that_fell_back_are_drawn_by_layer(visit: Visit, site: Site) -> None:
    race = document(site.content, "convergence")["races"][0]
    page = visit.show("#/convergence?all=")
    page.get_by_label("Method whose columns fell back").select_option("SONew band 4")
    visit.draw()
    (line,) = (line for line in race["lines"] if line["label"] == "SONew band 4" and line["best"])
    shares = sorted(line["fallback"]["layers"].values(), key=sum)
    assert [trace["y"] for trace in drawn(page, "Columns that fell back")] == [[100 * share for share in layer] for layer in shares]
