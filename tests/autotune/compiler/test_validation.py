"""The static model beside recorded times: numbers by hand, and the command on a planted recording."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from sonew import paths, tuned
from sonew.config import LaunchConfig
from sonew_autotune.cli import app
from sonew_autotune.commands import validating
from sonew_autotune.compiler import candidates
from sonew_autotune.compiler.candidates import Outcome
from sonew_autotune.compiler.cross import CompileRequest, Compilers
from sonew_autotune.compiler.targets import TARGETS
from sonew_autotune.compiler.validation import Config, Pair, Validation, config_key, correlations, validate
from sonew_autotune.problems import Case
from sonew_autotune.store import winners
from sonew_autotune.trials.landscape import Landscape, LandscapeRecord, write_landscapes
from sonew_autotune.trials.outcome import Failure
from sonew_kernels.spec import SPECS, source_hash
from tests.autotune.compiler.made import built

DEFAULT: Final = SPECS["triton"].default(1)
BLOCKS: Final = (128, 256, 512, 1024, 2048, 4096)
TIMES: Final = {128: 1.5, 256: 1.2, 512: 0.9, 1024: 1.0, 2048: 0.8, 4096: 2.0}
SCORES: Final = {128: 6.0, 256: 5.0, 512: 2.0, 1024: 4.0, 2048: 3.0, 4096: 9.0}
"""In order of score: 512, 2048, 1024, 256, 128, 4096; of time: 2048, 512, 1024, 256, 128, 4096. One pair of 15 is turned round."""
RHO: Final = 1 - 6 * 2 / (6 * 35)
TAU: Final = (14 - 1) / 15


def config_of(block: int) -> dict[str, int]:
    return {**DEFAULT, "block": block, "num_warps": 4 if block == 128 else 8}


def key_of(block: int) -> Config:
    return config_key(config_of(block))


def by_config(values: dict[int, float]) -> dict[Config, float]:
    return {key_of(block): value for block, value in values.items()}


def judge(
    ratios: dict[Config, float], scores: dict[Config, float], pruned: frozenset[Config] = frozenset(), *, kept: dict[str, int] = DEFAULT
) -> Validation | None:
    return validate(ratios, scores, pruned, default=DEFAULT, kept=kept)


def test_correlations_by_hand() -> None:
    found = correlations([SCORES[block] for block in BLOCKS], [TIMES[block] for block in BLOCKS])
    assert found is not None
    spearman, kendall = found
    assert (spearman.value, kendall.value) == pytest.approx((RHO, TAU))
    assert kendall.p_value == pytest.approx(2 * (1 + 5) / math.factorial(6))  # of 720 orders 1 has no inversion, 5 have one; two tails
    error = 1.959964 * math.sqrt((1 + RHO**2 / 2) / 3)
    assert (spearman.low, spearman.high) == pytest.approx(
        (math.tanh(math.atanh(RHO) - error), math.tanh(math.atanh(RHO) + error)), abs=1e-6
    )
    error = 1.959964 * math.sqrt(0.437 / 2)
    assert kendall.low == pytest.approx(math.tanh(math.atanh(TAU) - error), abs=1e-6)


def test_perfect_order_and_none() -> None:
    found = correlations([1, 2, 3, 4, 5], [10, 20, 30, 40, 50])
    assert found is not None
    assert [(one.value, one.low, one.high) for one in found] == [(1, 1, 1), (1, 1, 1)]
    assert correlations([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert correlations([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    assert correlations([1, 2, 3, 4, 5], [1, 1, 1, 1, 1]) is None


def test_regrets_by_hand() -> None:
    """The model's first choice, 512, is 0.9 where the best, which is kept, is 0.8, and the default 1.0."""
    found = judge(by_config(TIMES), by_config(SCORES), kept=config_of(2048))
    assert found is not None
    assert found.first == {**DEFAULT, "block": 512}
    assert (found.first_regret, found.kept_regret) == pytest.approx((0.125, 0))
    assert (found.default_regret, found.median_regret) == pytest.approx((0.25, 1.1 / 0.8 - 1))
    assert (found.measured, found.failed, found.unknown, found.pruned, found.pruned_regret) == (6, 0, 0, 0, None)


def test_what_failed_was_pruned_or_is_unknown_is_counted() -> None:
    """A first choice that failed on the device costs everything; a pruned best one is told."""
    times = by_config({**TIMES, 512: math.inf})
    scores = by_config({block: score for block, score in SCORES.items() if block not in (128, 2048)})
    found = judge(times, scores, frozenset({key_of(2048)}))
    assert found is not None
    assert (found.measured, found.failed, found.unknown, found.pruned, found.pruned_regret) == (5, 1, 1, 1, 0)
    assert found.first["block"] == 512
    assert found.first_regret == math.inf
    assert found.spearman is None  # three are left
    assert judge(by_config({512: 1.0, 256: 1.0}), by_config(SCORES)) is None
    assert judge(by_config({1024: 1.0}), by_config(SCORES)) is None


def test_pairs_agree_when_the_same_one_is_in_front() -> None:
    assert Pair(measured=0.9, predicted=0.5).agrees
    assert Pair(measured=1.1, predicted=1.0).agrees
    assert not Pair(measured=0.9, predicted=1.0).agrees


class FakeCompilers(Compilers):
    """Everything compiles; direction kernels of 4096 lanes spill more than they move."""

    def compile(self, requests: Sequence[CompileRequest], **_: Any) -> dict[Any, Outcome]:
        def outcome(request: CompileRequest) -> Outcome:
            heavy = request.part == ("direction", (4096, 8))
            return built(request.kernel, request.target, request.band, **({"spill_load_bytes": 1000} if heavy else {}))

        return {request.code: outcome(request) for request in requests}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A recording of the times above on cuda:90, whose scores are those above; and a candidate that failed there."""
    monkeypatch.setattr(validating, "Compilers", FakeCompilers)
    monkeypatch.setattr(candidates, "static_rank", lambda _compiled, config, _band, _dtypes, _chip: SCORES[config["block"]])
    write_landscapes(tmp_path / "trials.json", [landscape()])
    return tmp_path / "trials.json"


def landscape(**changes: Any) -> Landscape:
    records = [
        LandscapeRecord(config=config_of(block), times_ms=(time, time), default_ms=(1.0, 1.0), copy_ms=(0.5, 0.5))
        for block, time in TIMES.items()
    ]
    failed = LandscapeRecord(config={**DEFAULT, "update_block": 256}, failure=Failure("wrong", "differs"))
    case = Case(name="4096", shapes=((4096,),), device="cuda", band=1)
    key = tuned.make_key(case.problem, "triton", {**candidates.environment("cuda:90"), "device": "NVIDIA H100"}, source_hash("triton"))
    return Landscape(
        key=replace(key, **changes), case=case, default=DEFAULT, records=(*records, failed), versions={}, date="2026-01-01T00:00:00Z"
    )


def invoke(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command."""
    result = CliRunner().invoke(app, ["validate-model", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_nothing_measured_is_not_validated_for_every_target() -> None:
    code, out, _ = invoke()
    assert code == 3
    assert [line.split(" (")[0] for line in out.splitlines()] == [f"{target}: not validated" for target in TARGETS]
    code, out, _ = invoke("--target", "cuda:90", "--json")
    (entry,) = json.loads(out)["entries"]
    assert (code, entry["target"], entry["status"], entry["landscapes"]) == (3, "cuda:90", "not validated", [])


def test_a_planted_recording_is_judged(planted: Path) -> None:
    """4096 lanes are ruled out; of the five that are left, in the order 512 2048 1024 256 128, one pair of ten is turned round."""
    code, out, _ = invoke("--target", "cuda:90", "--landscape", str(planted), "--json")
    (entry,) = json.loads(out)["entries"]
    (found,) = entry["landscapes"]
    assert (code, entry["status"]) == (0, "validated")
    assert found["spearman"]["value"] == pytest.approx(1 - 6 * 2 / (5 * 24))
    assert found["kendall"]["value"] == pytest.approx(0.8)
    assert (found["measured"], found["failed"], found["unknown"], found["pruned"]) == (6, 1, 0, 1)
    assert found["pruned_regret"] == pytest.approx(2.0 / 0.8 - 1)
    assert (found["first_regret"], found["kept_regret"], found["default_regret"]) == pytest.approx((0.125, 0.125, 0.25))

    code, out, _ = invoke("--target", "cuda:90", "--landscape", str(planted))
    assert code == 0
    assert "+12.5%" in out
    assert "the model's first choice is block=512 num_warps=8" in out
    code, out, _ = invoke("--landscape", str(planted))
    assert code == 3
    assert "cuda:100: not validated" in out
    assert "cuda:90: not validated" not in out


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"source_hash": "0"}, "not used: trials.json: band 1, 4096, float32: stale: source_hash is '0', here"),
        ({"toolchain": "triton 1.0"}, "stale: toolchain is 'triton 1.0', here 'triton"),
        ({"kernel": "cpu"}, "not validated (no measured data"),
        ({"capability": "cuda:80"}, "not validated (no measured data"),
    ],
)
def test_another_kernel_compiler_or_device_says_nothing(planted: Path, change: dict[str, str], line: str) -> None:
    write_landscapes(planted, [landscape(**change)])
    code, out, _ = invoke("--target", "cuda:90", "--landscape", str(planted))
    assert code == 3
    assert line in out


def test_stored_entries_count_as_pairs(planted: Path) -> None:
    """Five challengers; the model has the wrong one in front where 256 lanes, slower for it, won by 1 %. They are enough for an order."""
    for number, block in enumerate((128, 256, 512, 2048, 4096, 2048)):
        ratio = 0.99 if block == 256 else TIMES[block]
        challenger = {"config": config_of(block), "ratio_to_default": {"median": ratio}}
        config = LaunchConfig.of("triton", config_of(block))
        key = replace(landscape().key, total_log2=number)
        winners.save(
            paths.store_path(), tuned.Entry(key=key, kind="measured", config=config, evidence={"challenger": challenger}), warn=pytest.fail
        )
    code, out, _ = invoke("--target", "cuda:90", "--json")
    (found,) = json.loads(out)["entries"]
    assert (found["stored"]["entries"], found["stored"]["same_one_in_front"]) == (5, 4)
    assert found["stored"]["spearman"]["value"] == pytest.approx(6.5 / 9.5)  # ranks 5 4 1 2.5 2.5 and 5 4 3 1.5 1.5
    assert (code, found["status"]) == (0, "validated")
    assert len(found["skipped"]) == 1  # 4096 lanes are ruled out
    assert planted.exists()


def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    for arguments, message in (
        (("--target", "h100"), "target='h100' is not of the form"),
        (("--landscape", str(tmp_path / "none.json")), "is not a file of recorded trials"),
    ):
        code, out, err = invoke(*arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1
