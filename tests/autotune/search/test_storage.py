"""Storages that processes share: a real database, and what is said about one that is none."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import optuna
import psycopg
import pytest
from optuna.trial import TrialState

from sonew import tuned
from sonew.errors import InvalidConfigError
from sonew_autotune.search import databases
from sonew_autotune.search.journals import JournalLock
from sonew_autotune.search.opening import join_search
from sonew_autotune.search.plan import Plan
from sonew_autotune.search.presence import ask
from sonew_autotune.search.storage import open_storage
from sonew_autotune.search.study import RECORD
from sonew_autotune.search.targets import recorded_target
from sonew_autotune.search.together import SUFFIX, decide_once, decided_entries
from sonew_autotune.settings import StorageError
from tests.autotune.entries import sound_entry
from tests.autotune.search.postgres import postgres
from tests.autotune.search.workers import BEST, LANDSCAPE, POINTS, forked, kill, status_of, tune

NAME = recorded_target(LANDSCAPE).study_name


def _trials(url: str) -> list[optuna.trial.FrozenTrial]:
    with open_storage(url) as opened:
        return optuna.load_study(study_name=NAME, storage=opened.storage).get_trials(deepcopy=False)


def _has_begun(url: str) -> bool:
    """Whether somebody's heart beats in a trial."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        try:
            return bool(connection.execute("select 1 from trial_heartbeats").fetchall())
        except psycopg.errors.UndefinedTable:
            return False


def _open(url: str) -> None:
    with open_storage(url) as opened:
        optuna.create_study(storage=opened.storage, study_name="x", load_if_exists=True)


def test_workers_on_postgresql_outlive_a_killed_one(tmp_path: Path) -> None:
    """One is killed in its first trial: its heart stops, and that point is tried by the others."""
    stores = [tmp_path / f"store{number}.json" for number in range(2)]
    with postgres() as url:
        openers = [forked(partial(_open, url)) for _ in range(4)]
        assert [status_of(opener) for opener in openers] == [0] * 4  # all of them found it empty
        doomed = forked(partial(tune, tmp_path, storage=url, store=tmp_path / "doomed.json", seed=9, delay_s=60.0))
        limit = time.monotonic() + 30
        while not _has_begun(url) and time.monotonic() < limit:
            time.sleep(0.05)
        kill(doomed)
        children = [forked(partial(tune, tmp_path, storage=url, store=store, seed=seed)) for seed, store in enumerate(stores)]
        assert [status_of(child) for child in children] == [0, 0]
        records = [trial.user_attrs[RECORD]["config"] for trial in _trials(url) if RECORD in trial.user_attrs]
        assert len(records) == len({tuple(sorted(config.items())) for config in records}) == len(POINTS)
        assert any(trial.state == TrialState.FAIL and RECORD not in trial.user_attrs for trial in _trials(url))
    for store in stores:
        (entry,) = tuned.read_store("user store", store).entries
        assert entry.config.as_dict() == BEST
    assert stores[0].read_text(encoding="utf-8") == stores[1].read_text(encoding="utf-8")


def test_a_database_that_cannot_be_reached_is_one_line_without_the_password() -> None:
    with (
        pytest.raises(StorageError, match=r"//tuner:\*\*\*@127\.0\.0\.1:1/x fails: .*Check that it is there") as caught,
        open_storage("postgresql+psycopg://tuner:secret@127.0.0.1:1/x"),
    ):
        pass
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("redis://localhost", r"names 'redis', which is not one of \['postgresql'"),
        ("://", "the storage is not a URL"),
        ("mysql://user@host/db", "needs a driver that is not installed .*pip install"),
        ("sqlite:////proc/nothing/x.db", "unable to open database file"),
    ],
)
def test_what_is_no_storage_is_refused(url: str, match: str) -> None:
    with pytest.raises((InvalidConfigError, StorageError), match=match), open_storage(url):
        pass


def test_a_journal_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfigError, match=r"the storage .* cannot be written"), open_storage(str(tmp_path / "file" / "x.journal")):
        pass


def test_the_lock_cuts_off_what_a_killed_writer_left(tmp_path: Path) -> None:
    journal = tmp_path / "x.journal"
    journal.write_bytes(b'{"whole": 1}\n{"torn')
    lock = JournalLock(journal)
    assert lock.acquire()
    lock.release()
    assert journal.read_bytes() == b'{"whole": 1}\n'


@pytest.mark.parametrize("content", [b"my notes, without an end", b"SQLite format 3\0rest\nmore", b"hello\n", b"[]\n"])
def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "studies.db"
    path.write_bytes(content)
    with pytest.raises(InvalidConfigError, match=r"is not a journal of studies: it was left as it is.*sqlite:///"), open_storage(str(path)):
        pass
    assert path.read_bytes() == content
    with pytest.raises(InvalidConfigError, match="is a folder"), open_storage(str(tmp_path)):
        pass


def test_a_journal_that_holds_something_else_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    path.write_text('{"op_code": 99}\n')
    with pytest.raises(StorageError, match=r"cannot be read \(.*\): it was left as it is"):
        tune(tmp_path, storage=str(path), store=tmp_path / "s.json", seed=0)
    assert path.read_text() == '{"op_code": 99}\n'


def test_a_process_that_died_before_its_heart_beat_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had asked for a trial, or for the decision, and nothing more."""
    monkeypatch.setattr(databases, "GRACE_BEATS", 2)  # each of the two is waited for
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    target = recorded_target(LANDSCAPE)
    with open_storage(url, heartbeat_s=1) as opened:
        search = join_search(opened, target.study_name, target.space, Plan(trials=len(POINTS)))
        ask(search._study, search._distributions)
        name = f"{target.study_name}{SUFFIX}"
        ask(optuna.create_study(storage=opened.storage, study_name=name))
    result = tune(tmp_path, storage=url, store=tmp_path / "s.json", seed=0)
    assert result.entry is not None
    assert result.entry.evidence["trials"] == len(POINTS)


def test_a_decider_that_was_taken_for_dead_is_heard_all_the_same(tmp_path: Path) -> None:
    with open_storage(str(tmp_path / "x.journal")) as opened:

        def decide() -> tuned.Entry:
            study = optuna.load_study(storage=opened.storage, study_name=f"x{SUFFIX}")
            (trial,) = study.get_trials(deepcopy=False)
            study.tell(trial.number, state=TrialState.FAIL)  # as another process would
            return sound_entry()

        entry, own = decide_once(opened, "x", decide=decide, enough=lambda _: True, keep_going=lambda: True)
        assert (entry, own) == (sound_entry(), True)
        assert decided_entries(opened) == [sound_entry()]


def test_a_decision_that_fails_leaves_the_next_process_free(tmp_path: Path) -> None:
    def fail() -> tuned.Entry:
        raise OSError(28, "No space left on device")

    with open_storage(str(tmp_path / "x.journal")) as opened:
        with pytest.raises(OSError, match="No space"):
            decide_once(opened, "x", decide=fail, enough=lambda _: True, keep_going=lambda: True)
        entry, own = decide_once(opened, "x", decide=sound_entry, enough=lambda _: True, keep_going=lambda: False)
    assert (entry, own) == (sound_entry(), True)
