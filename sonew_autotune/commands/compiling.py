"""`compile`: what a kernel takes of a GPU that need not be here, its stages, and bundles of machine code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from sonew.errors import InvalidConfigError
from sonew_autotune.commands.render import config_text, document, make_console
from sonew_autotune.commands.resource_cells import RESOURCE_HEADINGS, resource_cells
from sonew_autotune.commands.text import printable
from sonew_autotune.compiler import bundle
from sonew_autotune.compiler.cross import check_target
from sonew_autotune.compiler.kernel import BINARIES, STAGES, Compiled
from sonew_autotune.compiler.targets import parse_target
from sonew_autotune.compiler.wanted import Wanted, compile_wanted, kernels_of
from sonew_autotune.settings import Exit
from sonew_autotune.store.evidence import now
from sonew_autotune.store.files import writing


def check_stage(stage: str | None, target: str, *, binary: bool = True) -> None:
    """Refuse a stage that the target has not; without `binary`, one that is no text.

    Raises:
        InvalidConfigError: with the target's stages.
    """
    backend, _, _ = parse_target(target)
    stages = (*STAGES[backend], BINARIES[backend]) if binary else STAGES[backend]
    if stage is not None and stage not in stages:
        msg = f"stage={stage!r} is not one of {list(stages)} for {target}. Pass for example --stage {STAGES[backend][-1]}."
        raise InvalidConfigError(msg)


def _stage(compiled: Compiled, stage: str) -> str | bytes:
    if stage in compiled.stages:
        return compiled.stages[stage]
    return compiled.binary.code if compiled.binary is not None else b""


def to_terminal() -> bool:
    """Whether somebody sees what is printed."""
    return sys.stdout.isatty()


def _check_output(stage: str | None, output: Path | None, *, as_json: bool) -> None:
    """Where a stage goes: nothing is compiled that could not be shown."""
    if output is not None and stage is None:
        msg = f"output={str(output)!r} has nothing to hold: pass --stage as well, for example --stage ptx."
        raise InvalidConfigError(msg)
    if output is not None and (output.is_dir() or not output.resolve().parent.is_dir()):
        msg = f"output={str(output)!r} is not the path of a file in a folder that exists. Pass for example --output kernel.{stage}."
        raise InvalidConfigError(msg)
    if stage in BINARIES.values() and output is None and (as_json or to_terminal()):
        msg = f"stage={stage!r} is machine code, not for a terminal or a document. Pass --output kernel.{stage}, or send it to a pipe."
        raise InvalidConfigError(msg)


def _write(output: Path, content: str | bytes) -> None:
    with writing(f"the output {output}", otherwise="pass another --output"):
        output.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


def compile_command(wanted: Wanted, *, stage: str | None, kernel: str | None, output: Path | None, as_json: bool) -> Exit:
    """Compile, print a stage and the resource table; without a kernel all of them, or with a stage direction.

    A stage goes to `output` where given; machine code that goes to standard output leaves it to the table to go to standard error.
    """
    check_stage(stage, wanted.target)
    _check_output(stage, output, as_json=as_json)
    kernels = kernels_of(wanted, "direction" if kernel is None and stage is not None else kernel)
    config = wanted.launch_config
    check_target(wanted.target, wanted.band)
    built = compile_wanted(wanted, kernels)
    content = _stage(built[0], stage) if stage is not None else None
    if output is not None and content is not None:
        _write(output, content)
    if as_json:
        typer.echo(document([_compiled_json(compiled, config, stage, output) for compiled in built]))
        return Exit.DONE
    if output is None and content is not None:
        typer.echo(content, nl=isinstance(content, str))
    console = make_console(stderr=isinstance(content, bytes) and output is None)
    console.print(resource_table(wanted, built))
    if output is not None:
        console.print(f"Wrote the {stage} of the {built[0].kernel} kernel to {output}", markup=False, soft_wrap=True)
    return Exit.DONE


def title(wanted: Wanted) -> str:
    """What was compiled, in a line."""
    types = f"{wanted.dtype}{f', {wanted.state} state' if wanted.state != wanted.dtype else ''}"
    usual = {"entry": "table", "graft": "adam", "chain": "tensor"}
    extra = "".join(f", {name} {getattr(wanted, name)}" for name, value in usual.items() if getattr(wanted, name) != value)
    return f"{wanted.target}, band {wanted.band}, {types}{extra}: {config_text(wanted.launch_config)}"


def resource_table(wanted: Wanted, built: Sequence[Compiled]) -> Table:
    """What each kernel takes."""
    table = Table(title=title(wanted), title_justify="left")
    for heading in ("kernel", "threads", "instructions", *RESOURCE_HEADINGS):
        table.add_column(heading)
    for compiled in built:
        used = compiled.resources
        table.add_row(compiled.kernel, str(used.threads), str(used.instructions), *resource_cells(used))
    return table


def _compiled_json(compiled: Compiled, config: dict[str, int], stage: str | None, output: Path | None) -> dict[str, Any]:
    head = {"kernel": compiled.kernel, "target": compiled.target, "band": compiled.band, "config": config}
    shown: dict[str, Any] = {}
    if stage is not None:
        content = _stage(compiled, stage)
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        shown = {"stage": stage, "bytes": len(data), "sha256": sha256(data).hexdigest()}
        shown |= {"text": content} if output is None else {"output": str(output)}
    return {**head, "resources": asdict(compiled.resources), **shown}


def bundle_command(wanted: Wanted, folder: Path, *, force: bool, as_json: bool) -> Exit:
    """`compile --bundle`: the machine code of every kernel of the entry, with a manifest."""
    config = wanted.launch_config
    bundle.check_free(folder, force=force)
    check_target(wanted.target, wanted.band)
    built = compile_wanted(wanted, kernels_of(wanted, None), line_info=False)
    files = bundle.make_bundle(built, wanted.described(), command=f"{wanted.command()} --bundle FOLDER", date=now())
    bundle.write_bundle(folder, files, force=force)
    if as_json:
        typer.echo(document([{**_compiled_json(compiled, config, None, None), "bundle": str(folder)} for compiled in built]))
        return Exit.DONE
    console = make_console()
    console.print(resource_table(wanted, built))
    console.print(f"Wrote {len(files)} files to {folder}; compile --check-bundle verifies them.", markup=False, soft_wrap=True)
    return Exit.DONE


def check_bundle_command(folder: Path, *, as_json: bool) -> Exit:
    """`compile --check-bundle`: hash every file of a bundle again."""
    problems = bundle.verify_bundle(folder)
    if as_json:
        typer.echo(document([{"bundle": str(folder), "sound": not problems, "problems": problems}]))
    for line in problems if not as_json else ():
        typer.echo(printable(line))
    if not problems and not as_json:
        typer.echo(f"{folder}: every file is as the manifest says")
    return Exit.CHECK_FAILED if problems else Exit.DONE
