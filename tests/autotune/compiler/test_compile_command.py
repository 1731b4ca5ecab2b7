"""`compile`: stages, bundles and differences from outside."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import triton
from typer.testing import CliRunner

from sonew.errors import InvalidConfigError
from sonew_autotune.cli import app
from sonew_autotune.commands import compiling
from sonew_autotune.commands.resource_cells import RESOURCE_HEADINGS
from sonew_autotune.compiler.kernel import compile_kernel
from sonew_autotune.compiler.toolchain import ToolchainError, compile_elsewhere, compiled_from, compiled_json
from sonew_autotune.compiler.wanted import Wanted, varied
from sonew_kernels.spec import SPECS
from tests.autotune.commands.command_line import entries, invoke

UPDATE = ("--kernel", "update")
AMD = ("--target", "hip:gfx942")  # no disassembler to wait for


@pytest.mark.parametrize(("stage", "needle"), [("ptx", ".visible .entry"), ("sass", "STG")])
def test_a_stage_and_the_resources_are_printed(stage: str, needle: str) -> None:
    code, out, _ = invoke("compile", "--band", "1", "--target", "cuda:90", "--stage", stage, *UPDATE)
    assert code == 0
    assert needle in out
    assert all(heading in out for heading in RESOURCE_HEADINGS)


@pytest.mark.parametrize(
    ("entry", "kernels"),
    [("table", ["prologue", "direction", "norms", "update"]), ("direct", ["prologue", "direction", "roots"])],
)
def test_json_has_resources_of_every_kernel(entry: str, kernels: list[str]) -> None:
    code, out, _ = invoke("compile", "--band", "1", "--target", "hip:gfx942", "--entry", entry, "--json")
    assert code == 0
    compiled = entries(out)
    assert [kernel["kernel"] for kernel in compiled] == kernels
    for kernel in compiled:
        assert kernel["resources"]["registers"] > 0
        assert kernel["resources"]["load_widths"]
        assert kernel["config"]["block"] == 1024


@pytest.mark.parametrize(("target", "stage"), [("cuda:90", "cubin"), ("hip:gfx942", "hsaco"), ("hip:gfx942", "amdgcn")])
def test_a_stage_goes_to_a_file(target: str, stage: str, tmp_path: Path) -> None:
    file = tmp_path / "kernel"
    code, out, _ = invoke("compile", "--target", target, "--stage", stage, *UPDATE, "--output", str(file), "--json")
    (entry,) = entries(out)
    data = file.read_bytes()
    assert (code, entry["output"], entry["bytes"]) == (0, str(file), len(data))
    assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    assert b"s_endpgm" in data if stage == "amdgcn" else data.startswith(b"\x7fELF")
    assert "text" not in entry
    code, out, _ = invoke("compile", "--target", target, "--stage", stage, *UPDATE, "--output", str(file))
    assert (code, file.read_bytes()) == (0, data)
    assert f"Wrote the {stage} of the update kernel to {file}" in out


def test_machine_code_goes_to_a_pipe_and_not_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("compile", "--target", "hip:gfx942", "--stage", "hsaco", *UPDATE)
    result = CliRunner().invoke(app, list(arguments))
    binary = compile_kernel("update", SPECS["triton"].default(1), 1, "hip:gfx942").binary
    assert binary is not None
    assert (result.exit_code, result.stdout_bytes) == (0, binary.code)
    assert all(heading in result.stderr for heading in RESOURCE_HEADINGS)
    message = "stage='hsaco' is machine code, not for a terminal or a document. Pass --output kernel.hsaco"
    code, out, err = invoke(*arguments, "--json")
    assert (code, out) == (2, "")
    assert message in err
    monkeypatch.setattr(compiling, "to_terminal", lambda: True)
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_graft_and_chain_choose_the_code() -> None:
    plain, grafted, chained = (
        entries(invoke("compile", *AMD, "--stage", "ttir", *options, "--json")[1])[0]["text"]
        for options in ((), ("--graft", "none"), ("--chain", "64"))
    )
    assert "math.sqrt" in plain
    assert "math.sqrt" not in grafted
    assert chained.count("arith.divsi") + chained.count("arith.remsi") > plain.count("arith.divsi") + plain.count("arith.remsi")


def test_a_bundle_is_written_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    code, out, _ = invoke("compile", "--band", "0", "--target", "hip:gfx942", "--config", "block=256", "--bundle", str(folder))
    assert code == 0
    assert f"Wrote 9 files to {folder}" in out
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["command"] == (
        "sonew-autotune compile --band 0 --target hip:gfx942 --dtype float32 --state float32 --config block=256 --bundle FOLDER"
    )
    assert [kernel["name"] for kernel in manifest["kernels"]] == ["prologue", "direction", "norms", "update"]
    assert (manifest["config"]["block"], manifest["triton"]) == (256, triton.__version__)
    here = str(Path(__file__).resolve().parents[3]).encode()
    assert not [path.name for path in folder.iterdir() if here in path.read_bytes()]
    assert invoke("compile", "--check-bundle", str(folder))[:2] == (0, f"{folder}: every file is as the manifest says\n")
    (folder / "update.hsaco").write_bytes(b"")
    code, out, _ = invoke("compile", "--check-bundle", str(folder), "--json")
    (checked,) = entries(out)
    assert (code, checked["sound"]) == (1, False)
    assert checked["problems"][0].startswith("update.hsaco: changed")
    code, _, err = invoke("compile", "--band", "0", "--bundle", str(folder))
    assert code == 2
    assert "Pass --force" in err


def test_a_difference_is_shown_in_words_numbers_and_text() -> None:
    arguments = ("compile", *AMD, *UPDATE, "--diff", "update_block=1024", "update_block=2048")
    code, out, _ = invoke(*arguments, "--stage", "ttgir")
    assert code == 0
    assert "A: hip:gfx942, band 1, float32: block=1024 num_warps=8 update_block=1024" in out
    assert "each thread has more loads in flight and needs more registers" in out
    assert "\n+++ hip:gfx942" in out
    assert "\n+" in out.partition("\n@@")[2]
    code, out, _ = invoke(*arguments, "--stage", "ttir", "--json")
    (entry,) = entries(out)
    assert (code, entry["kernel"], entry["identical"], entry["stage"]) == (0, "update", False, "ttir")
    assert (entry["before"]["config"]["update_block"], entry["after"]["config"]["update_block"]) == (1024, 2048)
    assert {"registers per thread", "elements per thread"} <= {change["name"] for change in entry["changes"]}
    assert entry["diff"].startswith("--- hip:gfx942")


def test_differences_between_targets_and_of_nothing() -> None:
    code, out, _ = invoke("compile", *UPDATE, "--diff", "target=cuda:80", "", "--json")
    (entry,) = entries(out)
    assert (code, entry["before"]["target"], entry["after"]["target"]) == (0, "cuda:80", "cuda:90")
    assert entry["before"]["triton"] == triton.__version__
    code, out, _ = invoke("compile", *AMD, *UPDATE, "--diff", "", "block=512")
    assert code == 0
    assert "update: the machine code is identical, instruction for instruction" in out


def other_triton(folder: Path) -> Path:
    """A folder with the Triton that is here, as if pip had put it there."""
    folder.mkdir()
    (folder / "triton").symlink_to(Path(triton.__file__).parent)
    return folder


def test_another_triton_compiles_in_a_process_of_its_own(tmp_path: Path) -> None:
    folder = other_triton(tmp_path / "other")
    code, out, _ = invoke("compile", *UPDATE, "--target", "hip:gfx942", "--diff", "", f"triton={folder}")
    assert code == 0
    assert f"Triton {triton.__version__} of {folder}" in out
    assert "update: the machine code is identical" in out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _folder: None, r"no folder with a Triton in it .*Make such a folder: pip install --no-deps --target FOLDER triton=="),
        (lambda folder: (folder / "triton").mkdir(parents=True), "no folder with a Triton in it"),
    ],
)
def test_a_folder_without_triton_is_refused_with_the_way_to_make_one(make: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path / "other")
    with pytest.raises(InvalidConfigError, match=message):
        compile_elsewhere(tmp_path / "other", [])


def test_a_triton_that_does_not_run_is_an_error_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text("raise ImportError('made for another Python')\n", encoding="utf-8")
    with pytest.raises(ToolchainError, match="does not work here: ImportError: made for another Python"):
        compile_elsewhere(tmp_path, [])


def test_a_compiled_kernel_survives_the_way_to_another_process() -> None:
    compiled = compile_kernel("update", SPECS["triton"].default(1), 1, "cuda:90")
    assert compiled_from(json.loads(json.dumps(compiled_json(compiled)))) == compiled
    without = replace(compiled, binary=None)
    assert compiled_from(json.loads(json.dumps(compiled_json(without)))) == without


def test_overrides_go_over_the_command() -> None:
    base = Wanted(band=4, config=("block=512",))
    assert varied(base, "") == base
    side = varied(base, " band=1, num_warps=8,state=bfloat16,chain=row ")
    assert (side.band, side.state, side.chain, side.config) == (1, "bfloat16", "row", ("block=512", "num_warps=8"))
    assert side.launch_config == {"block": 512, "num_warps": 8, "update_block": 1024, "update_num_warps": 4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "cuda:10"), "target='cuda:10' cannot be used: CompileError: the update kernel does not compile"),
        (("--target", "hip:gfx9999"), "target='hip:gfx9999' cannot be used: CompileError:"),
        (("--target", "hip:gfxnope"), "target='hip:gfxnope' is not of the form"),
        (("--band", "99"), "band=99 is not one of [0, 1, 2, 3, 4, 5, 6, 7, 8, 16]. Pass for example --band 1."),
        (("--target", "cuda:90", "--stage", "amdgcn"), "stage='amdgcn' is not one of ['ttir', 'ttgir', 'llir', 'ptx', 'sass', 'cubin']"),
        (("--stage", "hsaco"), "stage='hsaco' is not one of"),
        (("--config", "blocks=3"), "config='blocks=3' is not name=integer"),
        (("--config", "block=7"), "block=7 is not one of"),
        (("--kernel", "factor"), "kernel='factor' is not one of ['prologue', 'direction', 'norms', 'update']"),
        (("--entry", "direct", "--kernel", "update"), "kernel='update' is not one of ['prologue', 'direction', 'roots']"),
        (("--entry", "jax"), "entry='jax' is not one of"),
        (("--graft", "lion"), "graft='lion' is not one of"),
        (("--chain", "0"), "chain='0' is not one of"),
        (("--dtype", "float64"), "dtype='float64' is not one of"),
        (("--state", "float16"), "state='float16' is not one of"),
        (("--output", "x"), "output='x' has nothing to hold"),
        (("--stage", "ptx", "--output", "no/such/folder/x"), "is not the path of a file in a folder that exists"),
        (("--diff", "blok=1", ""), "'blok=1' in --diff is not name=value with a name of ['block',"),
        (("--diff", "block", ""), "'block' in --diff is not name=value"),
        (("--diff", "band=one", ""), "band='one' is not one of"),
        (("--diff", "", "target=h100"), "target='h100' is not of the form"),
        (("--diff", "", "triton=nowhere"), "no folder with a Triton in it"),
        (("--diff", "", "target=hip:gfx942", "--stage", "sass"), "stage='sass' is not one of"),
        (("--diff", "", "", "--stage", "cubin"), "stage='cubin' is not one of"),
        (("--diff", "", "", "--bundle", "x"), "--diff and --bundle do not go together"),
        (("--check-bundle", "."), ". is no kernel bundle: its manifest.json is not readable"),
        (("--bundle", "."), ". is not empty and holds no bundle"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    code, out, err = invoke("compile", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
