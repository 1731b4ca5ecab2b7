"""`sonew-autotune worker`: several processes on one storage, as they are started from a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sonew import tuned
from sonew_autotune.trials.landscape import write_landscapes
from tests.autotune.commands.command_line import invoke
from tests.autotune.search.workers import BEST, LANDSCAPE, POINTS


def test_workers_started_from_a_shell_share_a_journal_and_import_fetches_the_result(tmp_path: Path) -> None:
    recording, journal = tmp_path / "recording.json", tmp_path / "studies.journal"
    write_landscapes(recording, [LANDSCAPE])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    common = ["--storage", str(journal), "--replay", str(recording), "--state-dir", str(tmp_path)]
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "sonew_autotune.cli",
                "worker",
                *common,
                "--store",
                str(tmp_path / f"{number}.json"),
                "--seed",
                str(number),
            ],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for number in range(2)
    ]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    for number in range(2):
        (entry,) = tuned.read_store("user store", tmp_path / f"{number}.json").entries
        assert entry.config.as_dict() == BEST
        assert entry.evidence["trials"] == len(POINTS)
    fetched = tmp_path / "fetched.json"
    code, out, err = invoke("import", "--storage", str(journal), "--store", str(fetched))
    assert (code, "1 added" in out) == (0, True), err
    (taken,) = tuned.read_store("user store", fetched).entries
    assert taken.config.as_dict() == BEST
    assert taken.evidence["imported_from"][0]["storage"] == str(journal)


def test_wrong_storages_are_one_line_and_code_2(tmp_path: Path) -> None:
    recording = tmp_path / "recording.json"
    write_landscapes(recording, [LANDSCAPE])
    common = ("--replay", str(recording), "--store", str(tmp_path / "s.json"))
    for storage, message in (
        ("redis://localhost", "names 'redis'"),
        ("postgresql+psycopg://tuner:secret@127.0.0.1:1/x", "the storage postgresql+psycopg://tuner:***@127.0.0.1:1/x fails:"),
    ):
        code, out, err = invoke("worker", "--storage", storage, *common)
        assert (code, out) == (2, "")
        assert message in err
        assert "secret" not in err
        assert len(err.splitlines()) == 1
    code, _, err = invoke("import")
    assert (code, "name a bundle or a --storage" in err) == (2, True)
