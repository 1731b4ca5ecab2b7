"""What earlier runs on this machine said of the same series."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from sonew_autotune.commands.text import printable
from sonew_perf.errors import RecordError
from sonew_perf.records.files import Entry
from sonew_perf.records.index import Index
from sonew_perf.records.model import Point, Run
from sonew_perf.records.reading import parse_record
from sonew_perf.suite.keeping import record_text

Ratios = Mapping[str, float]


def last_points(folder: Path) -> tuple[dict[str, Point], str]:
    """The newest done point of every series in a store and the committed baselines, and why there are none, or nothing.

    A store that cannot be read is no reason to fail: what was measured now stands for itself.
    """
    with tempfile.TemporaryDirectory() as empty:  # stands for a store that is not there yet: reading makes none
        try:
            index = Index.open(folder if folder.is_dir() else Path(empty))
        except RecordError as error:
            return {}, f"no stored ratios: {printable(str(error))}"
        with closing(index):
            return index.last_points(), ""


def measured_groups(folder: Path, run: Run) -> set[str]:
    """Groups of which a run of the same sources on the same machine has a result; none where the sources are unknown.

    Raises:
        RecordError: the store cannot be read.
    """
    if not run.commit or run.modified is None or not folder.is_dir():
        return set()
    with closing(Index.open(folder)) as index:
        same = {
            other.id for other in index.runs() if (other.commit, other.diff, other.machine.id) == (run.commit, run.diff, run.machine.id)
        }
        return {str(point.facts.get("group", "")) for point in index.summary_points() if point.run in same and point.status != "failed"}


def stored_ratios(run: Run, entries: Sequence[Entry], last: Mapping[str, Point]) -> list[Ratios]:
    """For every entry of a run the median ratios to its peers that were stored last for the same series.

    Args:
        run: the run. entries: its own. last: newest points by series.
    """
    ratios: list[Ratios] = [{} for _ in entries]
    record = parse_record(record_text(run, entries).encode(), stem=run.id, path="", origin="store")
    for result in record.results:
        kernel = entries[result.entry].get("kernel", result.series.kernel)
        point = last.get(result.series.id)
        if point is not None and result.series.measure == "time" and result.series.kernel == kernel:
            ratios[result.entry] = {peer: ratio["median"] for peer, ratio in point.against.items() if "median" in ratio}
    return ratios
