"""The sentences that the committed records do not bring out, and the form of numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sonew_perf.numbers import catalog, steps, training, words
from sonew_perf.numbers.pages import checkout
from sonew_perf.numbers.record import Record, read
from sonew_perf.records.files import Entry
from sonew_perf.steps.peers import FUSED


def _step(case: str, band: int, ratio: float, block: int = 1024) -> Entry:
    return {
        "case": case,
        "settings": {"backend": "auto", "band": band},
        "against": {FUSED: {"median": ratio, "low": ratio - 0.5, "high": ratio + 0.5}},
        "plans": [{"config": {"block": block}, "provenance": "x"}],
    }


def _run(method: str, lr: float, seed: int, loss: float, **more: Any) -> Entry:
    shared = {"band": 1, "steps": 100, "batch": 10, "wall_s": 10.0, "optimizer_s": 0.5, "plans": [], "images": {"count": 40}}
    machine = {"device": "Some CPU", "threads": 1, "torch": "3", "python": "3.12"}
    return {"method": method, "lr": lr, "seed": seed, "loss": loss, "machine": machine, "date": "2030-01-02T03:04:05", **shared, **more}


def _record(*entries: Entry) -> Record:
    return Record("some.json", entries, "[record](some.json)")


TIMES = [(0.634, "0.63"), (7.3817, "7.38"), (9.996, "10.0"), (13.651, "13.7"), (99.97, "100"), (444.97, "445"), (1190.0, "1190")]


@pytest.mark.parametrize(("value", "text"), TIMES)
def test_times_have_three_digits(value: float, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        ((0.29415, 0.27582, 0.3193), "0.29 [0.28, 0.32]"),
        ((9.4, 8.64, 10.2), "9.4 [8.6, 10.2]"),
        ((119.48, 108.87, 130.34), "119 [109, 130]"),
    ],
)
def test_ratios_have_the_decimals_of_their_size(ratio: tuple[float, float, float], text: str) -> None:
    named = dict(zip(("median", "low", "high"), ratio, strict=True))
    assert words.multiple(named) == text
    assert words.middle(named) == text.partition(" ")[0]
    assert words.multiple({"median": 1.0, "low": 1.0, "high": 1.0}) == "1"


@pytest.mark.parametrize(("value", "text"), [(4e-4, "4e-4"), (3.6e-3, "3.6e-3"), (1.08e-2, "1.08e-2"), (1.0, "1e0")])
def test_rates_are_short(value: float, text: str) -> None:
    assert words.rate(value) == text


def test_prose_is_wrapped_but_code_and_links_are_not_broken() -> None:
    command = "`run " + "--band 1 " * 20 + "`"
    lines = words.paragraph(f"{'word ' * 40} {command} ([record](some/file.json)).").splitlines()
    assert command in lines
    assert max(len(line) for line in lines if line != command) <= words.WIDTH


def test_a_pipe_in_a_cell_does_not_end_it() -> None:
    assert words.table(("a", "b"), [("x|y", "1")]) == "| a | b |\n|---|---|\n| x\\|y | 1 |"


def test_facts_list_what_records_disagree_on() -> None:
    one = {"machine": {"device": "Some CPU", "threads": 1, "torch": "3", "python": "3.12"}, "date": "2030-01-02T03", "load_before": 0.5}
    other = {**one, "date": "2030-01-03T03", "load_before": 0.25, "samples_ms": [1.0, 2.0]}
    versions = "Some CPU, 1 thread, torch 3, Python 3.12"
    expected = f"{versions}, 2030-01-02 and 2030-01-03, load average before the runs 0.50 and 0.25, 2 interleaved rounds"
    assert words.facts([one, other]) == expected


def test_the_cpu_target_names_what_misses_it() -> None:
    met = _record(_step("SONew band 1", 1, 3.5), _step("SONew band 4", 4, 7.0), _step("SONew band 8", 8, 99.0))
    assert "4 of the 4 rows of these bands meet it.\n" in steps.cpu_target(met, met)
    text = " ".join(steps.cpu_target(met, _record(_step("SONew band 4, untuned", 4, 7.25))).split())
    assert text.endswith(
        "2 of the 3 rows of these bands meet it; missed by SONew band 4 in a run of bands 4, 7.2 [6.8, 7.8] ([record](some.json))."
    )


def test_a_tuned_configuration_is_told_from_the_default() -> None:
    pairs = [_step("a", 1, 2), _step("a, untuned", 1, 2), _step("b", 4, 2, block=512), _step("b, untuned", 4, 2), _step("c, untuned", 8, 2)]
    told = steps._tuned_or_not(_record(*pairs))
    assert told.startswith("At band 1 the tuned entry is the analytic default: ")
    assert told.endswith(" At band 4 the tuned entry is another configuration than the analytic default.")
    assert steps._tuned_or_not(_record(_step("c, untuned", 8, 2))) == ""


def test_a_gain_that_is_a_loss_is_called_one() -> None:
    ends = {1e-3: (90.0, 100.0), 3e-3: (60.0, 50.0), 9e-3: (70.0, 80.0)}
    runs = [_run(method, lr, 0, loss) for lr, losses in ends.items() for method, loss in zip(("sonew", "adamw"), losses, strict=True)]
    text = " ".join(training.training(_record(*runs)).split())
    assert "Both optima lie inside the grid. SONew band 1 ends **20 % above AdamW** (seed by seed 20 to 20 %)" in text
    assert "SONew band 1 5.00 ms of a 100 ms step and AdamW 5.00 ms of a 100 ms step" in text
    edge = " ".join(training.training(_record(*runs[:4])).split())
    assert "The optimum of SONew band 1 and AdamW does not lie inside the grid." in edge


def test_seeds_that_disagree_with_the_mean_have_a_sign() -> None:
    ends = {"sonew": (50.0, 102.0), "adamw": (100.0, 100.0)}
    runs = [_run(method, 1e-3, seed, loss) for method, losses in ends.items() for seed, loss in enumerate(losses)]
    assert "ends **24 % below AdamW** (seed by seed -2 to 50 %)" in " ".join(training.training(_record(*runs)).split())


def test_bfloat16_says_where_the_baseline_differs_and_columns_fell() -> None:
    before = _record(_run("sonew", 1e-3, 0, 80.0))
    full, half = _run("sonew", 1e-3, 0, 81.0, fallback=0.0125), _run("sonew-bf16-state", 1e-3, 0, 40.5, fallback=0.5)
    text = " ".join(training.bfloat16(_record(full, half), before, command="train").split())
    assert "The losses with fp32 state differ from those above, taken with 1 thread, and up to 1.2 % of their columns fell back." in text
    assert "bf16 state ends 50.0 % below fp32 state, each at its best rate; rate by rate it is -50.0 % at 1e-3." in text


def test_links_lead_from_the_page_to_the_record() -> None:
    top = checkout()
    for page in ("README.md", "perf/README.md", "kernels/README.md"):
        found = re.fullmatch(r"\[record\]\((.+)\)", read(top, catalog.STEP, top / page).link)
        assert found is not None
        assert not Path(found[1]).is_absolute()
        assert ((top / page).parent / found[1]).resolve() == top / "perf/baselines" / catalog.STEP
