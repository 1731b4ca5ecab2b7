from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sonew_perf.training.runs import Run, by_label, find_result, identity
from tests.perf.training.made import DATA, make_run

MACHINE = {"device": "a", "threads": 1}


@pytest.mark.parametrize(
    ("run", "label"),
    [
        (make_run(band=4), "SONew band 4"),
        (make_run(band=0, lr=0.5, beta1=0.5, eps=1e-3, seed=3), "SONew band 0"),
        (make_run("adam", chain="row", band=4), "Adam"),
        (make_run(chain="row", gamma=0.0, precision="bf16"), "SONew band 1, chain row, gamma 0.0, bf16"),
        (make_run(band=4, beta2=0.99, precision="bf16-state"), "SONew band 4, gamma 0.00692, bf16-state"),
        (make_run("adamw", framework="jax"), "AdamW, JAX"),
        (
            make_run(eps_rel=1e-3, gamma=0.5, graft="sgd", layers="no-embeddings"),
            "SONew band 1, eps_rel 0.001, gamma 0.5, graft sgd, layers no-embeddings",
        ),
    ],
)
def test_a_label_names_the_method_with_everything_that_is_not_plain_but_its_rates(run: Run, label: str) -> None:
    assert run.label == label


def test_an_entry_says_what_was_run_on_what_data_and_machine() -> None:
    assert identity(make_run("sgd", beta1=0.5, seed=2), DATA.describe(), MACHINE) == {
        "kind": "training run",
        "task": "small",
        "framework": "torch",
        "precision": "fp32",
        "method": "sgd",
        "label": "SGD with momentum",
        "band": None,
        "lr": 0.02,
        "lr_rule": "constant",
        "schedule_steps": 8,
        "seed": 2,
        "steps": 8,
        "batch": 5,
        "hyper": {"lr": 0.02, "beta1": 0.5},
        "data": {"name": "ramps", "examples": 22, "sha256": "0f"},
        "machine": MACHINE,
    }


CHANGES: list[dict[str, Any]] = [
    {"lr": 0.03},
    {"beta2": 0.5},
    {"gamma": 0.0},
    {"layers": "no-embeddings"},
    {"band": 2},
    {"chain": 4},
    {"steps": 5},
    {"batch": 4},
    {"seed": 1},
    {"lr_rule": "steps"},
    {"schedule_steps": 9},
    {"precision": "bf16"},
    {"framework": "jax"},
    {"task": "text"},
]


@pytest.mark.parametrize("changed", CHANGES)
def test_a_run_with_another_setting_is_another_run(changed: dict[str, Any]) -> None:
    entry = identity(make_run(), DATA.describe(), MACHINE) | {"loss": 1.0}
    assert find_result([entry], identity(make_run(), DATA.describe(), MACHINE)) is entry
    assert find_result([entry], identity(make_run(**changed), DATA.describe(), MACHINE)) is None


def test_a_result_of_another_method_data_or_machine_is_not_reused() -> None:
    entry = identity(make_run(), DATA.describe(), MACHINE)
    others = [
        identity(make_run("adam"), DATA.describe(), MACHINE),
        identity(make_run(), replace(DATA, sha256="1f").describe(), MACHINE),
        identity(make_run(), DATA.describe(), MACHINE | {"threads": 2}),
    ]
    assert [find_result([entry], other) for other in others] == [None] * 3


def test_a_setting_that_a_method_does_not_take_makes_no_other_run() -> None:
    wanted = [identity(make_run("adam", **changed), DATA.describe(), MACHINE) for changed in ({}, {"gamma": 0.5, "chain": "row"})]
    assert wanted[0] == wanted[1]


def test_results_are_arranged_by_method_in_the_order_of_the_runs() -> None:
    runs = [make_run(band=4, seed=0), make_run("adam", seed=0), make_run(band=4, seed=1)]
    entries = [{"loss": number} for number in range(3)]
    assert list(by_label(runs, entries).items()) == [("SONew band 4", [entries[0], entries[2]]), ("Adam", [entries[1]])]
