"""A record file of any kind as a run, its series and its points. Nothing in the file is believed before it is checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sonew.documents import parse_json, read_regular_file
from sonew.errors import InvalidConfigError
from sonew_perf.errors import RecordError
from sonew_perf.records import gpu_record
from sonew_perf.records.checks import SAFE_ID, Fields, shown
from sonew_perf.records.files import SCHEMA_VERSION, Entry
from sonew_perf.records.machines import machine_of
from sonew_perf.records.model import Machine, Run, Series
from sonew_perf.records.results import SEARCH, TRAINING, Result, kind_of, series_id, timed_results
from sonew_perf.records.training import training_results


@dataclass(frozen=True, slots=True)
class Record:
    """A file that was read.

    Attributes:
        run: the run. results: its points. entries: what the results come from; a GPU's record in the form of a plain one.
    """

    run: Run
    results: Sequence[Result]
    entries: Sequence[Entry]


class _Machines:
    """The machines of a record's entries; nearly always one and the same."""

    def __init__(self, default: Machine | None) -> None:
        self._default = default
        self._last: tuple[Mapping[str, Any], Machine] | None = None

    def of(self, fields: Fields) -> Machine:
        """An entry's machine, by default the run's."""
        described = fields.values.get("machine")
        if described is None and self._default is not None:
            return self._default
        if self._last is None or self._last[0] != described:
            self._last = (Fields.of(f"{fields.where}, machine", described).values, machine_of(fields.inner("machine").values))
        return self._last[1]


def _run(about: Fields, entries: Sequence[Fields], stem: str, path: str, origin: str) -> Run:
    """What is said of the run, or can be told from its entries."""
    identity = about.text("id", stem)
    if SAFE_ID.fullmatch(stem) is None or identity != stem:
        msg = f"the run's id is {shown(identity)}, expected the file's name {shown(stem)} of letters, digits, '.', '_' and '-'"
        raise RecordError(msg)
    dates = sorted(date for fields in entries if (date := fields.date("date", "")))
    described = about.values.get("machine") or next((fields.values["machine"] for fields in entries if fields.values.get("machine")), None)
    load = about.number("load")
    return Run(
        id=identity,
        date=about.date("date", dates[0] if dates else None),
        machine=machine_of(Fields.of("machine", described).values),
        label=about.text("label", ""),
        command=about.text("command", ""),
        commit=about.commit("commit"),
        commit_date=about.date("commit_date", ""),
        branch=about.text("branch", ""),
        modified=about.flag("modified"),
        diff=about.name("diff", ""),
        load=entries[0].number("load_before") if load is None and entries else load,
        seconds=about.number("seconds"),
        path=path,
        origin=origin,
        pinned=origin == "baseline",
    )


def _results(entries: Sequence[Fields], run: Run) -> Iterator[Result]:
    machines = _Machines(run.machine)
    training = []
    for index, fields in enumerate(entries):
        name = fields.name("kind")
        if name == TRAINING:
            training.append((index, fields))
        elif name != SEARCH:
            for series, point in timed_results(fields, kind_of(name), machines.of(fields), run.id):
                yield Result(series, point, index)
    yield from training_results(training, machines.of, run.id)


def _distinct(results: Iterator[Result]) -> list[Result]:
    """Every result under a series of its own: what a run has twice gets "repeat=2" into its variant the second time."""
    made: list[Result] = []
    times: dict[Series, int] = {}
    for result in results:
        series, point = result.series, result.point
        times[series] = times.get(series, 0) + 1
        if times[series] > 1:
            repeat = f"repeat={times[series]}"
            series = replace(series, variant=f"{series.variant}, {repeat}" if series.variant else repeat)
            point = replace(point, series=series_id(series))
        made.append(Result(series, point, result.entry))
    return made


def parse_record(data: bytes, *, stem: str, path: str, origin: str) -> Record:
    """The record that the bytes of a file hold.

    Args:
        data: the bytes. stem: the file's name without its ending. path, origin: for the `Run`.

    Raises:
        RecordError: with the reason, in one line, that names neither path nor fix.
    """
    try:
        document = Fields.of("the file", parse_json(data, strict=True))
    except InvalidConfigError as error:
        msg = f"not readable as JSON ({' '.join(str(error).split())})"
        raise RecordError(msg) from error
    document.expect_version(SCHEMA_VERSION)
    if not isinstance(document.values.get("entries"), list):
        document.refuse("entries", "a list")
    if document.text("kind", "") == gpu_record.KIND:
        spent = sum(unit.number("seconds") or 0.0 for unit in document.objects("entries"))
        flat, about = gpu_record.flatten(document), Fields("run", gpu_record.about(document, spent))
    else:
        flat, about = [dict(entry.values) for entry in document.objects("entries")], document.inner("run")
    entries = [Fields(f"entry {number}", entry) for number, entry in enumerate(flat, start=1)]
    run = _run(about, entries, stem, path, origin)
    return Record(run, _distinct(_results(entries, run)), flat)


def read_record(path: Path, *, origin: str) -> Record:
    """The record in a file.

    Raises:
        RecordError: it cannot be read as one; the message names the file.
    """
    try:
        return parse_record(read_regular_file(path), stem=path.stem, path=str(path), origin=origin)
    except (OSError, InvalidConfigError, RecordError) as error:
        msg = f"{path} is no record: {error}. Move it away, or mend it."
        raise RecordError(msg) from error
