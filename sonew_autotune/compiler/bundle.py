"""A folder with the machine code of an entry's kernels and a manifest that says what it is: written whole, verified by hashes.

Beside `manifest.json` lie, for each kernel, the machine code without debug information (`direction.cubin`, on AMD `.hsaco`) and
its text (`direction.ptx`, on AMD `.amdgcn`). The manifest has a SHA-256 of every file, and what a launch of each kernel takes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from sonew.documents import DocumentError, UnreadableFileError, parse_json, read_regular_file
from sonew.errors import InvalidConfigError
from sonew_autotune.compiler.kernel import BINARIES, Binary, Compiled
from sonew_autotune.store.files import writing
from sonew_kernels.spec import source_hash, triton_launches

SCHEMA_VERSION: Final = 1
KIND: Final = "sonew kernel bundle"
MANIFEST: Final = "manifest.json"
TEXTS: Final[Mapping[str, str]] = {"cuda": "ptx", "hip": "amdgcn"}
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
OTHER_FOLDER: Final = "pass another folder"


class BundleError(InvalidConfigError):
    """A folder that is no kernel bundle, or that must not be written to."""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _kernel_files(compiled: Compiled, binary: Binary) -> dict[str, bytes]:
    """Content by file name: the machine code and its text."""
    backend = compiled.target.split(":", maxsplit=1)[0]
    text = TEXTS[backend]
    return {
        f"{compiled.kernel}.{BINARIES[backend]}": binary.code,
        f"{compiled.kernel}.{text}": compiled.stages[text].encode("utf-8"),
    }


def make_bundle(compiled: Sequence[Compiled], described: Mapping[str, Any], *, command: str, date: str) -> dict[str, bytes]:
    """Content of a bundle's files by name, the manifest among them.

    Args:
        compiled: kernels with their binaries. described: band, target, config and so on, for the manifest.
        command: the command line that makes the same. date: of making it.

    Raises:
        ValueError: a kernel came without its machine code.
    """
    files: dict[str, bytes] = {}
    kernels = []
    launches = triton_launches(described["config"], described["band"])
    for kernel in compiled:
        binary = kernel.binary
        if binary is None:
            msg = f"the {kernel.kernel} kernel came without its machine code"
            raise ValueError(msg)
        own = _kernel_files(kernel, binary)
        files |= own
        launch = launches.get(kernel.kernel)
        kernels.append(
            {
                "name": kernel.kernel,
                "symbol": binary.symbol,
                "files": {name: {"sha256": _sha256(data), "bytes": len(data)} for name, data in own.items()},
                "num_warps": binary.num_warps,
                "threads": kernel.resources.threads,
                "shared_bytes": kernel.resources.shared_bytes,
                "per_program": launch.unit if launch is not None else 1,
                "arguments": [{"name": name, "type": kind} for name, kind in binary.arguments.items()],
                "scratch_pointers": binary.scratch,
                "constants": dict(binary.constants),
                "resources": asdict(kernel.resources),
            }
        )
    head = {"schema_version": SCHEMA_VERSION, "kind": KIND, **described, "kernels": kernels}
    made = {"triton": _version(compiled), "source_hash": source_hash("triton"), "date": date, "command": command}
    manifest = json.dumps({**head, **made}, indent=1, allow_nan=False) + "\n"
    return {**files, MANIFEST: manifest.encode("utf-8")}


def _version(compiled: Sequence[Compiled]) -> str:
    return next((kernel.binary.triton for kernel in compiled if kernel.binary is not None), "")


def write_bundle(folder: Path, files: Mapping[str, bytes], *, force: bool) -> None:
    """Write a bundle's files (`make_bundle`) beside the folder and move them into place in one step.

    Args:
        folder: new, empty, or with `force` an earlier bundle, which is replaced.

    Raises:
        BundleError: the folder holds something else.
        WriteError: it cannot be written; what was there is there still.
    """
    home = folder.resolve()
    check_free(home, force=force)
    with writing(f"the bundle {folder}", otherwise=OTHER_FOLDER):
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{home.name}.") as scratch:
            fresh, old = Path(scratch) / "new", Path(scratch) / "old"
            fresh.mkdir()
            for name, data in files.items():
                (fresh / name).write_bytes(data)
            if home.exists():
                home.rename(old)
            try:
                fresh.rename(home)
            except OSError:
                if old.exists():
                    old.rename(home)
                raise


def check_free(folder: Path, *, force: bool) -> None:
    """Refuse a folder that a bundle must not replace, before anything is compiled.

    Raises:
        BundleError: it is a file, holds foreign files, or holds a bundle and `force` is not set.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        msg = f"{folder} is no folder: nothing was written. {OTHER_FOLDER.capitalize()}."
        raise BundleError(msg)
    held = {path.name for path in folder.iterdir()}
    if not held:
        return
    if MANIFEST not in held:
        msg = f"{folder} is not empty and holds no bundle: nothing was written. {OTHER_FOLDER.capitalize()}."
        raise BundleError(msg)
    if foreign := sorted(held - {MANIFEST, *(name for name, _ in _listed(_read_manifest(folder), folder))}):
        msg = f"{folder} holds {foreign[:5]} besides a bundle: nothing was written. Move them away, or {OTHER_FOLDER}."
        raise BundleError(msg)
    if not force:
        msg = f"{folder} holds a bundle already: nothing was written. Pass --force to replace it, or {OTHER_FOLDER}."
        raise BundleError(msg)


def _read_manifest(folder: Path) -> Mapping[str, Any]:
    """The manifest of a bundle.

    Raises:
        BundleError: there is none, or it is of another kind.
    """
    fix = "Pass a folder that sonew-autotune compile --bundle wrote."
    try:
        document = parse_json(read_regular_file(folder / MANIFEST), strict=True)
    except (OSError, UnreadableFileError, DocumentError) as error:
        msg = f"{folder} is no kernel bundle: its {MANIFEST} is not readable ({error}). {fix}"
        raise BundleError(msg) from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        msg = f"{folder} is no kernel bundle: its {MANIFEST} is of another kind. {fix}"
        raise BundleError(msg)
    if document.get("schema_version") != SCHEMA_VERSION:
        found = document.get("schema_version")
        msg = f"{folder}: schema_version is {found!r}, this version reads {SCHEMA_VERSION}. Use the version that wrote it."
        raise BundleError(msg)
    return document


def _listed(manifest: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every file that the manifest lists, with its digest and size.

    Raises:
        BundleError: the manifest has another form, or a name that leads out of the folder.
    """
    kernels = manifest.get("kernels")
    for kernel in kernels if isinstance(kernels, list) else [None]:
        files = kernel.get("files") if isinstance(kernel, dict) else None
        if not isinstance(files, dict):
            msg = f"{folder}: its {MANIFEST} lists no files of a kernel. Make the bundle again."
            raise BundleError(msg)
        for name, about in files.items():
            if not PLAIN_NAME.fullmatch(name) or name == MANIFEST or not isinstance(about, dict):
                msg = f"{folder}: its {MANIFEST} lists {name[:80]!r}, which is no plain file name. Do not use this bundle."
                raise BundleError(msg)
            yield name, about


def verify_bundle(folder: Path) -> list[str]:
    """What is wrong with a bundle, a line each: files that are missing, changed, no regular files, or not in the manifest.

    Raises:
        BundleError: no bundle, or one whose manifest names files outside the folder.
    """
    listed = dict(_listed(_read_manifest(folder), folder))
    problems = [line for name, about in listed.items() for line in _file_problems(folder / name, about)]
    foreign = sorted({path.name for path in folder.iterdir()} - {MANIFEST, *listed})
    return [*problems, *(f"{name}: not in the manifest" for name in foreign)]


def _file_problems(path: Path, about: Mapping[str, Any]) -> Iterator[str]:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            yield f"{path.name}: no regular file"
            return
        data = read_regular_file(path)
    except (OSError, UnreadableFileError) as error:
        yield f"{path.name}: {'missing' if isinstance(error, FileNotFoundError) else f'not readable ({error})'}"
        return
    if _sha256(data) != about.get("sha256"):
        yield f"{path.name}: changed, its SHA-256 is {_sha256(data)}, listed is {str(about.get('sha256'))[:64]}"
