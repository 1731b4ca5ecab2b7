"""The static entries that travel with the kernels: one file per target, made from the kernels as they are now."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from sonew import tuned
from sonew.dispatch import SHIPPED_FOLDER as FOLDER
from sonew_autotune.compiler.shipping import KEPT, keep_defaults
from sonew_autotune.compiler.targets import TARGETS
from sonew_kernels.spec import SPECS, source_hash

FILES: Final = {target: FOLDER / f"static-{target.replace(':', '-')}.json" for target in TARGETS}
METHODS: Final = sorted(("float32", state, band) for state in ("float32", "bfloat16") for band in range(5))
"""Types of parameters and gradients, and of state and direction, and bands that are shipped."""
LARGEST: Final = 300_000  # bytes of all together: they are read when a step is planned
RENEW: Final = "the static entries are out of date: renew them with `make static`"


@pytest.fixture(scope="module")
def stores() -> dict[str, tuned.Store]:
    return {target: tuned.read_store("shipped store", path) for target, path in FILES.items()}


def test_every_target_has_its_file_and_no_other_is_there() -> None:
    assert {path.name for path in FOLDER.glob("static-*")} == {path.name for path in FILES.values()}, RENEW
    assert sum(path.stat().st_size for path in FILES.values()) < LARGEST


@pytest.mark.parametrize("target", TARGETS)
def test_entries_are_static_valid_and_of_the_kernels_as_they_are(target: str, stores: dict[str, tuned.Store]) -> None:
    store = stores[target]
    assert store.problems == ()
    for entry in store.entries:
        key = entry.key
        assert entry.kind == "static"
        assert (key.kernel, key.device, key.capability, key.threads) == ("triton", tuned.ANY_DEVICE, target, 0)
        assert key.source_hash == source_hash("triton"), RENEW
        assert SPECS["triton"].rejects(entry.config.as_dict(), key.band) is None, RENEW
        assert entry.evidence["failed"] + entry.evidence["left_out"] == 0, RENEW
    methods = [(entry.key.param_dtype, entry.key.state_dtype, entry.key.band) for entry in store.entries]
    assert methods, RENEW
    assert len(set(methods)) == len(methods)
    assert set(methods) <= set(METHODS), RENEW


def test_one_compiler_made_them_all(stores: dict[str, tuned.Store]) -> None:
    assert len({entry.key.toolchain for store in stores.values() for entry in store.entries}) == 1, RENEW


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_that_ships_rests_on_the_model_alone(target: str, stores: dict[str, tuned.Store]) -> None:
    """The model is not validated: a candidate that it puts ahead is for those who ask for it."""
    for entry in stores[target].entries:
        assert entry.config.as_dict() == SPECS["triton"].default(entry.key.band)
        assert entry.evidence["result"] == KEPT
        assert entry.evidence["ratio_to_default"]["high"] == 1


def test_what_displaces_the_default_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "static-x.json"
    entries = [{"evidence": {"result": result}} for result in (KEPT, "ranked first", KEPT)]
    path.write_text(json.dumps({"schema_version": 1, "entries": entries}))
    assert keep_defaults(path) == 1
    assert json.loads(path.read_text())["entries"] == [entries[0], entries[2]]


def test_a_measured_entry_of_any_size_goes_before_a_shipped_one(stores: dict[str, tuned.Store]) -> None:
    shipped = stores["cuda:90"].entries[0]
    wanted = replace(shipped.key, device="NVIDIA H100 80GB HBM3", total_log2=10, median_log2=10)
    measured = replace(shipped, key=replace(wanted, total_log2=30), kind="measured")
    verdicts = [tuned.judge("shipped store", entry, wanted, None) for entry in (*stores["cuda:90"].entries, measured)]
    best = tuned.best(verdicts)
    assert best is not None
    assert best.entry is measured
    alone = tuned.best(verdicts[:-1])
    assert alone is not None
    assert alone.entry is shipped
