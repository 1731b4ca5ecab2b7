"""`sonew-perf dashboard`: a file, or a server that ends quietly."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from pathlib import Path
from threading import Thread

import pytest
import typer
from typer.testing import CliRunner

from sonew_perf.cli.dashboard import dashboard
from sonew_perf.dashboard.server import make_app, serve
from tests.perf.records.made import make_store

app = typer.Typer()
app.command()(dashboard)


@pytest.fixture(autouse=True)
def no_baselines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sonew_perf.cli.dashboard.BASELINES", tmp_path / "no-baselines")


def test_an_export_says_where_it_is_and_what_it_keeps(tmp_path: Path) -> None:
    make_store(tmp_path / "store", series=2, runs=2)
    done = CliRunner().invoke(app, ["--export", str(tmp_path / "out.html"), "--store", str(tmp_path / "store")])
    assert done.exit_code == 0, done.output
    assert "This file keeps, of each series, every run of the history" in done.output
    assert (tmp_path / "out.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_store_is_the_one_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONEW_PERF_STORE", str(tmp_path / "none"))
    done = CliRunner().invoke(app, ["--export", str(tmp_path / "out.html")])
    assert done.exit_code == 0, done.output


def test_a_busy_port_is_wrong_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(app, ["--port", port, "--store", str(tmp_path)])
    assert done.exit_code == 2
    assert f"error: port {port} cannot be used" in done.output


def test_the_server_answers_on_the_loopback_interface_and_ctrl_c_ends_it_quietly(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path, series=2, runs=2)
    answers: list[bytes] = []

    def asks(address: str) -> None:
        with urllib.request.urlopen(f"{address}api/meta.json", timeout=20) as answer:  # noqa: S310  # this machine's own address
            answers.append(answer.read())
        os.kill(os.getpid(), signal.SIGINT)

    threads: list[Thread] = []

    def ready(address: str) -> None:
        assert address.startswith("http://127.0.0.1:")
        threads.append(Thread(target=asks, args=(address,)))
        threads[0].start()

    serve(make_app(tmp_path, None), 0, ready)
    threads[0].join()
    assert json.loads(answers[0])["runs"] == 2
    assert capfd.readouterr().err == ""
