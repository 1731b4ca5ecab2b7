"""Compiling by another Triton, from a folder of its own and in a process of its own: `python -m` this module is that process."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sonew.errors import InvalidConfigError, SonewError
from sonew_autotune.compiler.kernel import Binary, Compiled, Dtypes, compile_kernel
from sonew_autotune.compiler.resources import Resources

SECONDS: Final = 300.0  # for a command's kernels: each takes about one
HOW: Final = "Make such a folder: pip install --no-deps --target FOLDER triton==3.6.0"


class ToolchainError(SonewError, RuntimeError):
    """Another Triton does not compile; the message has its own reason in a line."""


def compiled_json(compiled: Compiled) -> dict[str, Any]:
    """Everything of a compiled kernel as JSON."""
    document = {**asdict(compiled), "stages": dict(compiled.stages)}
    if compiled.binary is not None:
        document["binary"]["code"] = base64.b64encode(compiled.binary.code).decode("ascii")
    return document


def compiled_from(document: Mapping[str, Any]) -> Compiled:
    """The kernel of `compiled_json`."""
    given = {field.name for field in fields(Resources) if field.init}
    used = {name: value for name, value in document["resources"].items() if name in given}
    for name in ("load_widths", "store_widths"):
        used[name] = {int(width): times for width, times in used[name].items()}
    binary = document["binary"]
    if binary is not None:
        binary = Binary(**{**binary, "code": base64.b64decode(binary["code"])})
    return Compiled(**{**document, "resources": Resources(**used), "binary": binary})


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds no Triton.

    Raises:
        InvalidConfigError: with the way to make one.
    """
    if not (folder / "triton" / "__init__.py").is_file():
        msg = f"triton={str(folder)!r} is no folder with a Triton in it (triton/__init__.py is missing). {HOW}"
        raise InvalidConfigError(msg)


def compile_elsewhere(folder: Path, requests: Sequence[Mapping[str, Any]]) -> list[Compiled]:
    """Compile by the Triton in a folder.

    Args:
        folder: holds the package `triton`, made by pip's --target.
        requests: arguments of `kernel.compile_kernel` by name, as JSON takes them.

    Raises:
        InvalidConfigError: the folder holds no Triton.
        ToolchainError: that Triton does not run here, or does not compile a kernel.
    """
    check_folder(folder)
    home = folder.resolve()
    paths = os.pathsep.join([str(home), *(path for path in sys.path if path)])
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "answer.json"
        command = [sys.executable, "-P", "-m", __spec__.name, str(answer)]  # -P: the working directory takes no part
        try:
            done = subprocess.run(  # noqa: S603  # this module, in this interpreter
                command,
                env={**os.environ, "PYTHONPATH": paths},
                input=json.dumps(list(requests)),
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            msg = f"the Triton in {folder} gave no answer in {SECONDS:.0f} s. {HOW}"
            raise ToolchainError(msg) from error
        if done.returncode != 0 or not answer.is_file():
            last = (done.stderr.strip() or f"it ended with status {done.returncode}").splitlines()[-1]
            msg = f"the Triton in {folder} does not work here: {last[:500]}. It must be of this Python's version. {HOW}"
            raise ToolchainError(msg)
        reply = json.loads(answer.read_text(encoding="utf-8"))
    if reply["error"]:
        msg = f"by the Triton in {folder}: {reply['error']}"
        raise ToolchainError(msg)
    if not Path(reply["triton"]).is_relative_to(home):
        msg = f"{folder} holds a Triton, but {reply['triton']} was imported before it. {HOW}"
        raise ToolchainError(msg)
    return [compiled_from(document) for document in reply["compiled"]]


def serve(requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the other process answers: where its Triton lies, and the kernels or the reason against one."""
    reply: dict[str, Any] = {"triton": import_module("triton").__file__, "error": "", "compiled": []}
    try:
        for request in requests:
            compiled = compile_kernel(**{**request, "dtypes": Dtypes(*request["dtypes"])})
            reply["compiled"].append(compiled_json(compiled))
    except SonewError as error:
        reply["error"] = str(error)
    return reply


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(serve(json.load(sys.stdin))), encoding="utf-8")
