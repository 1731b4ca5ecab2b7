"""`report`: studies as HTML pages."""

from __future__ import annotations

import hashlib
import re
import webbrowser
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console

from sonew import paths
from sonew.errors import InvalidConfigError
from sonew.tuned import read_store
from sonew_autotune.commands.render import document, make_console
from sonew_autotune.commands.text import printable
from sonew_autotune.settings import Exit
from sonew_autotune.store.files import prepare_folder, write_atomically, writing

INDEX: Final = "index.html"
LONGEST_NAME: Final = 120  # characters of a file's name before its digest
NAMED: Final = 8  # studies that an error lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to report.

    Attributes:
        study: part of the names of the studies wanted, "": all. output: the folder of the pages.
        storage: a shared storage's path or URL, None: the journals of the state folder. opened: show the result in a browser.
    """

    study: str = ""
    output: Path = Path("tuning-report")
    storage: str | None = None
    opened: bool = False


def page_name(study: str) -> str:
    """The file name of a study's page: its name, where that is a plain one, else what is left of it and a digest."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", study).strip("._")[:LONGEST_NAME] or "study"
    if plain != study or f"{plain}.html".lower() == INDEX:
        plain = f"{plain}-{hashlib.sha256(study.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return f"{plain}.html"


def _choose(names: Sequence[str], part: str) -> None:
    if not any(part in name for name in names):
        shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        msg = f"study={part!r} is in the name of none of the {len(names)} studies ({printable(shown)}). Pass a part of one of these names."
        raise InvalidConfigError(msg)


def report(wanted: Wanted, *, as_json: bool) -> Exit:
    """`sonew-autotune report`."""
    from sonew_autotune.report import reading  # noqa: PLC0415  # Optuna is loaded where it is used
    from sonew_autotune.report.studies import read_study  # noqa: PLC0415  # as above

    console, messages = make_console(stderr=as_json), make_console(stderr=True)
    broken: list[str] = []

    def warn(line: str) -> None:
        broken.append(line)
        messages.print(f"warning: {printable(line)}", style="bold red", markup=False, soft_wrap=True)

    if wanted.storage is not None:
        place, raw = wanted.storage, reading.read_storage(wanted.storage)
    else:
        place, raw = str(paths.state_dir() / "studies"), reading.read_state(paths.state_dir(), warn)
    if not raw:
        where = "the storage" if wanted.storage is not None else place
        messages.print(f"There is no study in {printable(where)}: run sonew-autotune run first.", markup=False, soft_wrap=True)
        return Exit.WRONG_USE if broken else Exit.NOT_JUDGED
    _choose([each.name for each in raw], wanted.study)
    store = read_store("user store", paths.store_path())
    for line in store.problems:
        warn(line)
    chosen = [read_study(each, store.entries) for each in raw if wanted.study in each.name]
    prepare_folder(wanted.output, subject=f"the report {wanted.output}", fix="Pass another folder with --output.")
    with writing(f"the report {wanted.output}", otherwise="pass another --output"):
        written = _write(chosen, wanted.output, messages)
    if as_json:
        typer.echo(document(written))
    else:
        for entry in written:
            console.print(f"{printable(entry['study'])}: {entry['verdict']}", markup=False, soft_wrap=True)
            console.print(f"  {entry['page']}", markup=False, soft_wrap=True)
        console.print(f"All of them: {wanted.output / INDEX}", markup=False, soft_wrap=True)
    first = wanted.output / INDEX if len(written) > 1 else Path(written[0]["page"])
    if wanted.opened and not webbrowser.open(first.resolve().as_uri()):
        messages.print(f"No browser was found: open {first} yourself.", markup=False, soft_wrap=True)
    return Exit.DONE


def _write(chosen: Sequence[Any], output: Path, messages: Console) -> list[dict[str, Any]]:
    """Write a page per study, then the index; the entries of the document."""
    from sonew_autotune.report.index import Listed, index_page  # noqa: PLC0415  # as in `report`
    from sonew_autotune.report.page import study_page  # noqa: PLC0415  # as in `report`
    from sonew_autotune.report.reasons import explain  # noqa: PLC0415  # as in `report`

    listed, entries = [], []
    with messages.status("Writing") as progress:
        for place, study in enumerate(chosen, 1):
            progress.update(f"[{place}/{len(chosen)}] {printable(study.title)}")
            listed.append(Listed(study, page_name(study.name)))
            reasons = explain(study)
            write_atomically(output / listed[-1].page, study_page(study, reasons, index=INDEX))
            entries.append(_entry(study, output / listed[-1].page, reasons.about))
        write_atomically(output / INDEX, index_page(listed))
    return entries


def _entry(study: Any, page: Path, why: str) -> dict[str, Any]:  # noqa: ANN401  # a `report.studies.Study`
    from sonew_autotune.report.analysis import failed  # noqa: PLC0415  # as in `report`
    from sonew_autotune.report.index import date_of  # noqa: PLC0415  # as in `report`
    from sonew_autotune.report.verdict import gain, status, verdict  # noqa: PLC0415  # as in `report`

    reached = gain(study)
    return {
        "study": study.name,
        "source": study.source,
        "problem": study.title,
        "page": str(page),
        "result": status(study),
        "verdict": verdict(study),
        "why": why,
        "gain": asdict(reached) if reached is not None else None,
        "trials": len(study.records),
        "failed": len(failed(study.records)),
        "running": study.running,
        "space": study.space or None,
        "date": date_of(study) or None,
        "notes": list(study.notes),
    }
