"""`report` from outside: what it writes, says and refuses."""

from __future__ import annotations

import json
import webbrowser
from dataclasses import asdict
from pathlib import Path

import pytest

from sonew import paths
from sonew_autotune.commands.reporting import page_name
from sonew_autotune.measure import Ratio
from sonew_autotune.store.winners import save
from tests.autotune.commands.command_line import entries, invoke
from tests.autotune.report.made import entry_of, key_of, raw_study, subject_of, write_journal
from tests.autotune.report.parsed import parse

WINNER = {"segment": 65536, "block": 2048, "threads": 0}


@pytest.fixture
def studies() -> Path:
    """Two studies in the state folder, one of them decided in the user's store."""
    folder = paths.state_dir() / "studies"
    write_journal(folder / "one.journal", raw_study(decided=False))
    small = subject_of(key_of("cpu", total_log2=16, median_log2=16), case="65536")
    name = "cpu-band1-float32-65536-fedcba9876543210"
    write_journal(folder / "two.journal", raw_study(name=name, subject=small, records=[], decided=False, running=1))
    save(paths.store_path(), entry_of(key_of("cpu"), WINNER), warn=print)
    return folder


def test_a_page_per_study_and_a_list_are_written(studies: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "pages"
    code, stdout, stderr = invoke("report", "--output", str(output), "--json")

    first, second = entries(stdout)
    assert (code, stderr) == (0, "")
    assert sorted(path.name for path in output.iterdir()) == sorted(["index.html", Path(first["page"]).name, Path(second["page"]).name])
    assert first["study"] == raw_study().name
    assert (first["result"], first["trials"], first["failed"], first["space"]) == ("tuned", 40, 8, 40)
    ratio = Ratio(**entry_of(key_of("cpu"), WINNER).evidence["ratio_to_default"])
    assert first["gain"] == pytest.approx(asdict(ratio.inverse()))
    assert first["source"] == str(studies / "one.journal")
    assert first["why"].startswith("The winner was faster")
    assert (second["result"], second["gain"], second["running"]) == ("undecided", None, 1)
    shown = parse(Path(first["page"]).read_text(encoding="utf-8"))
    assert shown.one("p", **{"class": "verdict"}).text.startswith("segment=65536 block=2048 threads=0: ")
    assert f'href="{Path(second["page"]).name}"' in (output / "index.html").read_text(encoding="utf-8")


def test_a_broken_journal_is_named_and_the_others_are_reported(studies: Path, tmp_path: Path) -> None:
    (studies / "broken.journal").write_text("no journal\n")
    code, stdout, stderr = invoke("report", "--study", "65536", "--output", str(tmp_path / "out"))

    assert code == 0
    assert "broken.journal is no journal of a study" in stderr
    assert "cpu-band1-float32-65536-fedcba9876543210: No trial has finished yet. 1 trial is under way." in stdout
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_no_study_is_no_report(tmp_path: Path) -> None:
    code, _, stderr = invoke("report", "--output", str(tmp_path / "out"))
    assert code == 3
    assert "There is no study in" in stderr
    assert not (tmp_path / "out").exists()

    (paths.state_dir() / "studies").mkdir(parents=True)
    (paths.state_dir() / "studies" / "broken.journal").write_text("no journal\n")
    assert invoke("report", "--output", str(tmp_path / "out"))[0] == 2


def test_bad_input_is_refused(studies: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    commands = {
        ("--study", "no such"): "study='no such' is in the name of none of the 2 studies",
        ("--output", str(file / "below")): "cannot be written",
        ("--storage", str(tmp_path / "none.journal")): "does not exist",
        ("--storage", "mongodb://host/db"): "'mongodb', which is not one of",
        ("--storage", str(file)): "is no journal of a study",
    }
    for options, expected in commands.items():
        code, _, stderr = invoke("report", *options)
        assert (code, expected in stderr) == (2, True), stderr
    assert studies.is_dir()


def test_a_shared_storage_is_reported(tmp_path: Path) -> None:
    write_journal(tmp_path / "shared.journal", raw_study())
    code, stdout, _ = invoke("report", "--storage", str(tmp_path / "shared.journal"), "--output", str(tmp_path / "out"), "--json")

    assert code == 0
    assert [entry["result"] for entry in entries(stdout)] == ["tuned"]


def test_a_failing_write_leaves_the_old_page(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "out" / page_name(raw_study().name)
    old.parent.mkdir()
    old.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sonew_autotune.store.files.os.fsync", full)
    code, _, stderr = invoke("report", "--output", str(tmp_path / "out"))

    assert code == 2
    assert "Free space on that disk, or pass another --output" in stderr
    assert old.read_text() == "old"
    assert [path.name for path in old.parent.iterdir()] == [old.name]
    assert studies.is_dir()


def test_open_shows_the_list(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def show(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", show)
    assert invoke("report", "--open", "--output", str(tmp_path / "out"))[0] == 0
    assert opened == [(tmp_path / "out" / "index.html").as_uri()]

    monkeypatch.setattr(webbrowser, "open", lambda _url: False)
    _, _, stderr = invoke("report", "--open", "--study", "65536", "--output", str(tmp_path / "out"))
    assert "No browser was found: open " in stderr
    assert studies.is_dir()


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        ("cpu-band1-float32-65536-0123456789abcdef", "cpu-band1-float32-65536-0123456789abcdef.html"),
        ("../../etc/passwd", "etc_passwd-"),
        ("index", "index-"),
        ("", "study-"),
        ("\ud800" + "x" * 5000, "x" * 120),
    ],
)
def test_file_names_stay_in_the_folder(study: str, expected: str) -> None:
    name = page_name(study)

    assert name.startswith(expected)
    assert "/" not in name
    assert len(name) < 150
    assert name.endswith(".html")


def test_documents_are_json_without_special_numbers(studies: Path, tmp_path: Path) -> None:
    _, stdout, _ = invoke("report", "--output", str(tmp_path / "out"), "--json")

    json.loads(stdout, parse_constant=pytest.fail)
    assert studies.is_dir()
