"""Bundles of machine code: written whole, replaced only where that is meant, and verified without trust."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from sonew_autotune.compiler.bundle import BundleError, make_bundle, verify_bundle, write_bundle
from sonew_autotune.compiler.kernel import Binary, Compiled
from sonew_autotune.compiler.wanted import Wanted
from sonew_autotune.store.files import WriteError
from tests.autotune.compiler.made import built

WANTED: Final = Wanted(band=1, target="cuda:90")


def made(kernel: str, code: bytes = b"code") -> Compiled:
    """A kernel with machine code that is none."""
    binary = Binary(
        code=code,
        symbol=f"{kernel}_table",
        num_warps=4,
        arguments={"rows": "*i64", "tile_count": "i32"},
        scratch=2,
        constants={"BAND": 1},
        triton="3.7.1",
    )
    return replace(built(kernel), stages={"ptx": f".visible .entry {kernel}_table"}, binary=binary)


def files(**changes: bytes) -> dict[str, bytes]:
    """The files of a bundle of two kernels."""
    kernels = [made(name, changes.get(name, b"code")) for name in ("prologue", "update")]
    return make_bundle(kernels, WANTED.described(), command=WANTED.command(), date="2026-01-01T00:00:00Z")


def manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a bundle's manifest."""
    document = manifest(folder)
    change(document)
    (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")


def content(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_says_what_it_is_and_how_it_is_launched(tmp_path: Path) -> None:
    write_bundle(tmp_path / "new" / "bundle", files(), force=False)
    folder = tmp_path / "new" / "bundle"
    document = manifest(folder)
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        *(f"{k}.{e}" for k in ("prologue", "update") for e in ("cubin", "ptx")),
    }
    assert (document["schema_version"], document["kind"], document["triton"]) == (1, "sonew kernel bundle", "3.7.1")
    assert document["dtypes"] == {"param": "float32", "grad": "float32", "state": "float32", "direction": "float32"}
    assert document["config"] == {"block": 1024, "num_warps": 8, "update_block": 1024, "update_num_warps": 4}
    assert document["command"] == "sonew-autotune compile --band 1 --target cuda:90 --dtype float32 --state float32"
    prologue, update = document["kernels"]
    assert (prologue["symbol"], prologue["num_warps"], prologue["threads"], prologue["scratch_pointers"]) == ("prologue_table", 4, 128, 2)
    assert (prologue["per_program"], update["per_program"]) == (64, 1)
    assert prologue["arguments"] == [{"name": "rows", "type": "*i64"}, {"name": "tile_count", "type": "i32"}]
    assert prologue["files"]["prologue.cubin"] == {"sha256": hashlib.sha256(b"code").hexdigest(), "bytes": 4}
    assert prologue["resources"]["registers"] == 40
    assert verify_bundle(folder) == []
    assert not list(folder.parent.glob(".*"))


def test_damage_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_bundle(folder, files(), force=False)
    (folder / "prologue.cubin").write_bytes(b"mode")
    (folder / "prologue.ptx").unlink()
    (folder / "update.ptx").unlink()
    (folder / "update.ptx").symlink_to(folder / "manifest.json")
    (folder / "extra").touch()
    problems = verify_bundle(folder)
    assert [line.split(",")[0] for line in problems] == [
        "prologue.cubin: changed",
        "prologue.ptx: missing",
        "update.ptx: no regular file",
        "extra: not in the manifest",
    ]
    assert hashlib.sha256(b"mode").hexdigest() in problems[0]


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/b", "..", ".", "", ".hidden", "a\\b", "a\nb", "manifest.json", "ü"])
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_bundle(folder, files(), force=False)
    rewrite(folder, lambda document: document["kernels"][0]["files"].update({name: {"sha256": "0", "bytes": 1}}))
    with pytest.raises(BundleError, match="no plain file name"):
        verify_bundle(folder)
    with pytest.raises(BundleError, match="no plain file name"):
        write_bundle(folder, files(), force=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(kind="else"), "of another kind"),
        (lambda document: document.update(schema_version=2), "schema_version is 2, this version reads 1"),
        (lambda document: document.pop("kernels"), "lists no files"),
        (lambda document: document.update(kernels=[1]), "lists no files"),
        (lambda document: document["kernels"][0].update(files=[]), "lists no files"),
    ],
)
def test_other_manifests_are_refused(change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_bundle(folder, files(), force=False)
    rewrite(folder, change)
    with pytest.raises(BundleError, match=message):
        verify_bundle(folder)


def test_no_bundle_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no kernel bundle: its manifest\.json is not readable"):
        verify_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(BundleError, match=r"no kernel bundle: its manifest\.json is not readable"):
        verify_bundle(tmp_path)


def test_what_is_there_is_replaced_only_where_it_is_a_bundle_and_that_is_meant(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_bundle(folder, files(), force=False)  # an empty folder is free
    before = content(folder)
    with pytest.raises(BundleError, match=r"holds a bundle already: nothing was written\. Pass --force"):
        write_bundle(folder, files(update=b"other"), force=False)
    assert content(folder) == before
    write_bundle(folder, files(update=b"other"), force=True)
    assert content(folder)["update.cubin"] == b"other"
    assert verify_bundle(folder) == []
    (folder / "notes.txt").touch()
    with pytest.raises(BundleError, match=r"holds \['notes.txt'\] besides a bundle"):
        write_bundle(folder, files(), force=True)
    for foreign in (tmp_path, tmp_path / "bundle" / "notes.txt"):
        with pytest.raises(BundleError, match="nothing was written"):
            write_bundle(foreign, files(), force=True)
    assert content(folder)["update.cubin"] == b"other"


def test_a_failing_write_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bundle"
    write_bundle(folder, files(), force=False)
    before = content(folder)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(WriteError, match=r"Nothing was lost\. Free space on that disk"):
        write_bundle(folder, files(update=b"other"), force=True)
    assert content(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_kernel_without_machine_code_is_no_part_of_a_bundle() -> None:
    with pytest.raises(ValueError, match="without its machine code"):
        make_bundle([built("update")], WANTED.described(), command="", date="")
