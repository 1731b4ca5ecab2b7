"""`run --target` from outside: the table, the document, what is ruled out, what the budget left out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from typer.testing import CliRunner

from sonew import paths, tuned
from sonew_autotune.cli import app
from sonew_autotune.commands import ranking
from sonew_autotune.compiler.candidates import Outcome
from sonew_autotune.compiler.cross import CompileRequest, Compilers
from sonew_kernels.spec import SPECS
from tests.autotune.compiler.made import built


class FakeCompilers(Compilers):
    """Only so many kernels compile; those of 4096 lanes spill, fewer threads cost less."""

    most = 10**6

    def compile(self, requests: Sequence[CompileRequest], *, told: Any, **_: Any) -> dict[Any, Outcome]:
        outcomes: dict[Any, Outcome] = {}
        for request in list(requests)[: self.most]:
            spills = 500 if request.kernel == "direction" and request.config["block"] == 4096 else 0
            threads = 32 * request.config["num_warps" if request.kernel == "direction" else "update_num_warps"]
            outcomes[request.code] = built(request.kernel, request.target, request.band, threads=threads, spill_load_bytes=spills)
            told(request, outcomes[request.code])
        return outcomes


@pytest.fixture(autouse=True)
def fake_compilers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[FakeCompilers] | None:
    if request.node.get_closest_marker("full"):
        return None

    class Fake(FakeCompilers):
        pass

    monkeypatch.setattr(ranking, "Compilers", Fake)
    return Fake


def run(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `run --target cuda:100`."""
    result = CliRunner().invoke(app, ["run", "--target", "cuda:100", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_table_shows_the_best_the_default_and_what_was_ruled_out() -> None:
    code, out, _ = run("--band", "1", "--size", "4096")
    assert code == 0
    assert "band 1 float32: compiling 35 kernels" in out
    assert "cuda:100 (B200), band 1, float32: ranked by the static model" in out
    assert "(default)" in out
    assert "60% float, 40% integer" in out
    assert "spills heavily: 500 bytes per thread, more than the 48 that it loads and stores" in out
    assert f"Stored 1 static entries in {paths.store_path()}" in out
    (entry,) = tuned.read_store("user store", paths.store_path()).entries
    assert (entry.kind, entry.key.capability) == ("static", "cuda:100")


def test_the_document_has_every_candidate_and_every_reason() -> None:
    code, out, err = run("--band", "1", "--size", "4096", "--json")
    assert code == 0
    assert "compiling 35 kernels" in err
    document = json.loads(out)
    (result,) = document["entries"]
    assert document["schema_version"] == 1
    assert {(pruned["kernel"], pruned["config"]["block"]) for pruned in result["pruned"]} == {("direction", 4096)}
    assert all(pruned["reason"].startswith("spills heavily") for pruned in result["pruned"])
    assert all(candidate["config"]["block"] != 4096 for candidate in result["candidates"])
    kernels = len({(c["config"]["block"], c["config"]["num_warps"]) for c in result["candidates"]}) + len(result["pruned"])
    assert kernels == 21
    assert result["candidates"][0]["resources"]["direction"]["mix"] == {"float": 60, "integer": 40}
    assert result["candidates"][0]["resources"]["direction"]["loaded_bytes"] == 44
    assert (result["failures"], result["left_out"]) == ([], 0)


def test_what_the_budget_left_out_is_said(fake_compilers: type[FakeCompilers]) -> None:
    fake_compilers.most = 4
    code, out, _ = run("--band", "1", "--size", "4096")
    assert code == 0
    assert "warning: band 1 float32: 31 kernels were not compiled, the farthest from the default; pass a larger --budget" in out
    fake_compilers.most = 0
    assert run("--band", "2", "--size", "4096")[0] == 3


@pytest.mark.full
def test_quick_effort_ends_within_five_minutes(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing compiled before, for the default problems."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    start = time.monotonic()
    result = CliRunner().invoke(app, ["run", "--target", "cuda:90", "--effort", "quick", "--json"])
    assert time.monotonic() - start < 300
    assert result.exit_code == 0
    found = json.loads(result.stdout)["entries"]
    assert {entry["problem"]["band"] for entry in found} == {1, 2, 4}
    assert all(dict(entry["stored"]["config"]) in [c["config"] for c in entry["candidates"]] for entry in found)
    defaults = {entry["problem"]["band"]: SPECS["triton"].default(entry["problem"]["band"]) for entry in found}
    assert all(any(c["config"] == defaults[entry["problem"]["band"]] for c in entry["candidates"]) for entry in found)
