"""The store as the pages see it: read again when its files change, every view made once, histories analysed one after another."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Final

from sonew_perf.dashboard.comparisons import comparison_files, read_comparisons
from sonew_perf.dashboard.content import Content, Json, Row
from sonew_perf.dashboard.documents import UnknownViewError, document
from sonew_perf.dashboard.views.meta import meta
from sonew_perf.dashboard.views.regressions import regressions
from sonew_perf.errors import RecordError
from sonew_perf.history import analyse, done_points, read_tickets, set_ticket
from sonew_perf.history.regressions import History
from sonew_perf.history.tickets import State, Ticket
from sonew_perf.records.index import Index
from sonew_perf.records.listing import list_records
from sonew_perf.records.model import Problem
from sonew_perf.records.runs import TICKETS

SERIES: Final = "series/"
FROM_ANALYSES: Final = ("meta", "overview", "series", "regressions")  # views that say more as histories are analysed


def encoded(value: Json) -> bytes:
    """As JSON without blanks; whatever the text, it is ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


class Catalogue:
    """Views of one store, for several threads.

    Args:
        store: the folder of the store. baselines: the folder of committed records, where there is one.

    Raises:
        RecordError: as `Index.open`.
    """

    def __init__(self, store: Path, baselines: Path | None) -> None:
        self._store, self._baselines = store, baselines
        self._lock = RLock()
        self._stopped = Event()
        self._worker: Thread | None = None
        self._bodies: dict[str, tuple[str, bytes]] = {}
        self._index = Index.open(store, baselines)
        self._content = self._read()

    @property
    def content(self) -> Content:
        """The state that views are made from."""
        return self._content

    def refresh(self) -> None:
        """Look at the files again. Raises as `Index.open`."""
        with self._lock:
            self._index.refresh()
            if self._index.revision != self._content.revision:
                earlier, files, self._content = self._content, self._files, self._read()
                self._take_over(earlier, same_files=files == self._files)
                self._bodies.clear()

    def revision(self) -> Row:
        """What a page asks now and then: whether there is something new."""
        with self._lock:
            self.refresh()
            about = meta(self._content, mode="server", generated="")
            return {name: about[name] for name in ("revision", "runs", "analysed")}

    def body(self, name: str) -> tuple[str, bytes]:
        """(an entity tag, the view as JSON), made once for a state of the store. `meta`, which a page asks for first, looks at the files.

        Raises:
            UnknownViewError: there is no such view. RecordError: as `refresh`.
        """
        with self._lock:
            if name == "meta":
                self.refresh()
            content = self._content
            if name.startswith(SERIES):
                self._analyse(content, name.removeprefix(SERIES))
            state = [content.revision, name, len(content.fresh) if name in FROM_ANALYSES else 0]
            tag = hashlib.sha256(repr(state).encode()).hexdigest()[:24]
            if name not in self._bodies or self._bodies[name][0] != tag:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                value = meta(content, mode="server", generated=now) if name == "meta" else document(content, name)
                self._bodies[name] = tag, encoded(value)
            return self._bodies[name]

    def say(self, ticket: str, state: State, note: str, author: str = "") -> Row:
        """Say something about a regression; its row afterwards.

        Raises:
            UnknownViewError: there is no such regression. RecordError: the state is none, or the file cannot be written.
        """
        with self._lock:
            if ticket not in {row["id"] for row in regressions(self._content)}:
                msg = f"The store has no regression {ticket!r}. Choose one of the list of regressions."
                raise UnknownViewError(msg)
            set_ticket(self._store, ticket, state, note=note, author=author)
            self.refresh()
            self._analyse(self._content, ticket.partition("-")[0])
            return next(row for row in regressions(self._content) if row["id"] == ticket)

    def analyse_all(self) -> None:
        """Analyse every history now, until somebody closes the catalogue."""
        content = self._content
        for series_id in content.series:
            if self._stopped.is_set() or content is not self._content:
                return
            self._analyse(content, series_id)

    def analyse_meanwhile(self) -> None:
        """Analyse every history in a thread of its own, if that is not being done."""
        with self._lock:
            done = len(self._content.fresh) == len(self._content.series)
            if done or self._stopped.is_set() or (self._worker is not None and self._worker.is_alive()):
                return
            self._worker = Thread(target=self.analyse_all, name="sonew-perf-analyses", daemon=True)
            self._worker.start()

    def close(self) -> None:
        """Stop working and let go of the index."""
        self._stopped.set()
        if self._worker is not None:
            self._worker.join()
        self._index.close()

    def _read(self) -> Content:
        self._files = list_records(self._store, self._baselines)
        comparisons, problems = read_comparisons(comparison_files(self._store, self._baselines))
        problems = [*self._index.problems(), *problems]
        tickets: dict[str, Ticket] = {}
        try:
            tickets = read_tickets(self._store)
        except RecordError as error:
            problems.append(Problem(str(self._store / TICKETS), str(error)))
        return Content(
            index=self._index,
            revision=self._index.revision,
            comparisons=comparisons,
            problems=problems,
            tickets=tickets,
        )

    def _take_over(self, earlier: Content, *, same_files: bool) -> None:
        """Keep what was analysed in an earlier state: it still holds where no record changed, and is better than nothing where one did."""
        content = self._content
        for series_id, history in earlier.analyses.items():
            if series_id in content.series and all(point.run in content.run_by_id for point in history.points):
                content.analyses[series_id] = history
        if same_files:
            content.fresh.update(earlier.fresh)

    def _analyse(self, content: Content, series_id: str) -> None:
        """One history, where it was not analysed yet."""
        if series_id in content.fresh or series_id not in content.series:
            return
        series, points = content.series[series_id], content.index.summary_points(series_id)
        history = History(series, done_points(points, content.run_by_id), analyse(points, content.run_by_id, series))
        with self._lock:
            content.analyses[series_id] = history
            content.fresh.add(series_id)
