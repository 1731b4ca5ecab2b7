"""The server answers this machine's own pages and nobody else."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sonew_perf.dashboard.page import SCRIPTS, STATIC
from sonew_perf.dashboard.server import HEADERS, LARGEST_BODY, PortError, make_app, serve
from sonew_perf.history.tickets import read_tickets
from sonew_perf.records.runs import write_run
from tests.perf.dashboard.asking import ADDRESS, Client, asking
from tests.perf.dashboard.made import HOSTILE
from tests.perf.records.made import Step, made_run, make_store, step_entry

OWN = {"x-sonew": "1"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty runs of six series, the last of which becomes a third slower; and a run with markup for a label and a failure."""
    folder = tmp_path_factory.mktemp("store")
    make_store(folder, series=6, runs=20, step=Step(series=5, run=12, ratio=1.4))
    failed: dict[str, Any] = {"status": "failed", "reason": f"lost in {HOSTILE}", "samples_ms": None}
    entries = [step_entry("AdamW fused", 65536, [1.0, 1.1]), step_entry("SONew band 8", 65536, [], **failed)]
    write_run(folder, made_run(30, label=HOSTILE), entries)
    (folder / "runs" / "torn.json").write_text('{"schema_version": 1, "entries": [', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[Client]:
    with asking(make_app(store, None)) as made:
        yield made


@pytest.mark.parametrize(
    "path", ["/", "/static/app.js", "/api/meta.json", "/api/none.json", "/static/none.js", "/nothing", "/api/tickets/x"]
)
def test_every_answer_has_the_headers_that_keep_a_page_alone(client: Client, path: str) -> None:
    answer = client.get(path)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_the_policy_lets_in_nothing_from_elsewhere(client: Client) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} <= set(policy.split("; "))
    assert "http" not in policy
    assert "unsafe-eval" not in policy


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8765", 200), ("localhost", 200), ("[::1]:8765", 200), ("evil.example", 400), ("127.0.0.1.evil.example", 400)],
)
def test_only_names_of_this_machine_are_answered(client: Client, host: str, status: int) -> None:
    answer = client.get("/api/meta.json", headers={"host": host})
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_asks_for_its_parts_and_they_are_there(client: Client) -> None:
    page = client.get("/").text
    assert 'data-mode="server"' in page
    assert "<!-- " not in page
    (library,) = re.findall(r'<script src="/static/app.js" data-plotly="([^"]+)" defer></script>', page)
    for path in (library, "/static/app.js"):
        assert client.get(path).headers["content-type"] == "text/javascript; charset=utf-8"
    kept = client.get(library)
    assert hashlib.sha256(kept.content).hexdigest()[:12] in library
    assert "immutable" in kept.headers["cache-control"]
    assert "immutable" not in client.get("/static/app.js").headers["cache-control"]
    assert client.get("/static/plotly-000000000000.js").status_code == 404
    assert client.get("/static/app.css").headers["content-type"] == "text/css; charset=utf-8"
    script = client.get("/static/app.js").text
    parts = (STATIC / SCRIPTS).read_text(encoding="utf-8").split()
    assert [script.index((STATIC / name).read_text(encoding="utf-8")) for name in parts] == sorted(
        script.index((STATIC / name).read_text(encoding="utf-8")) for name in parts
    )


def test_a_view_that_the_browser_has_is_not_sent_again(client: Client) -> None:
    first = client.get("/api/runs.json")
    assert first.headers["cache-control"] == "private, no-cache"  # kept, and asked for again
    again = client.get("/api/runs.json", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/api/runs.json", headers={"if-none-match": '"other"'}).status_code == 200
    assert client.get("/api/meta.json").headers["etag"] != first.headers["etag"]


def test_hostile_names_arrive_as_data(client: Client) -> None:
    answer = client.get("/api/runs.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()[0]["label"] == HOSTILE
    assert HOSTILE not in client.get("/").text
    failure = next(item for item in client.get("/api/overview.json").json()["attention"] if item["kind"] == "failure")
    assert failure["text"] == f"lost in {HOSTILE}"


def test_a_broken_file_is_named_without_its_folder(client: Client, store: Path) -> None:
    answer = client.get("/api/meta.json")
    assert [problem["path"] for problem in answer.json()["problems"]] == ["torn.json"]
    assert str(store) not in answer.text


@pytest.mark.parametrize("path", ["series/none", "comparisons/none", "secrets", "series/../../etc/passwd", "tickets"])
def test_what_is_not_there_is_a_clear_error(client: Client, path: str) -> None:
    answer = client.get(f"/api/{path}.json")
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_a_view_that_breaks_says_so_and_tells_no_folder(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(_catalogue: object, _name: str) -> Any:
        msg = "/a/secret/folder"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr("sonew_perf.dashboard.catalogue.Catalogue.body", breaking)
    answer = client.get("/api/roofline.json")
    assert answer.status_code == 500
    assert "ZeroDivisionError" in answer.json()["error"]
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def regression(client: Client) -> dict[str, Any]:
    """The one of the planted step, once its history is analysed."""
    for row in client.get("/api/series.json").json():
        client.get(f"/api/series/{row['id']}.json")
    (found,) = client.get("/api/regressions.json").json()
    return dict(found)


def test_a_history_is_analysed_before_it_is_shown(client: Client) -> None:
    found = regression(client)
    view = client.get(f"/api/series/{found['series']}.json").json()
    (change,) = view["changes"]
    assert (change["index"], change["first_bad"], change["direction"]) == (12, view["points"]["run"][12], "slower")
    assert found["ratio"] == change["ratio"] == pytest.approx(1.4, rel=0.05)
    assert client.get("/api/revision.json").json()["analysed"] == {"done": 7, "total": 7}


def test_a_ticket_is_kept_in_the_store_and_changes_what_the_views_say(client: Client, store: Path) -> None:
    found = regression(client)
    before = client.get("/api/regressions.json").headers["etag"]
    answer = client.post(f"/api/tickets/{found['id']}", json={"state": "accepted", "note": HOSTILE}, headers=OWN)
    assert answer.status_code == 200
    assert (answer.json()["regression"]["state"], answer.json()["regression"]["note"]) == ("accepted", HOSTILE)
    assert read_tickets(store)[found["id"]].note == HOSTILE
    after = client.get("/api/regressions.json", headers={"if-none-match": before})
    assert after.json()[0]["state"] == "accepted"
    assert client.get(f"/api/series/{found['series']}.json").json()["changes"][0]["ticket"] == {"state": "accepted", "note": HOSTILE}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"x-sonew": "1", "content-type": "text/plain"}, 403),
        ({"x-sonew": "1", "content-type": "application/x-www-form-urlencoded"}, 403),
        ({"x-sonew": "1", "origin": "http://evil.example"}, 403),
        ({"x-sonew": "1", "origin": "null"}, 403),
        ({"x-sonew": "1", "host": "evil.example"}, 400),
    ],
)
def test_another_page_cannot_change_a_ticket(client: Client, store: Path, headers: dict[str, str], status: int) -> None:
    ticket, body = f"/api/tickets/{regression(client)['id']}", '{"state": "ignored"}'
    client.post(ticket, json={"state": "open"}, headers=OWN)
    sent = {"content-type": "application/json", **headers}
    assert client.post(ticket, content=body, headers=sent).status_code == status
    assert [kept.state for kept in read_tickets(store).values()] == ["open"]
    own = {"content-type": "application/json", "x-sonew": "1", "origin": ADDRESS}
    assert client.post(ticket, content=body, headers=own).status_code == 200  # the same from its own page
    assert client.post("/api/tickets/unknown", content=body, headers=own).status_code == 404
    assert [kept.state for kept in read_tickets(store).values()] == ["ignored"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        '{"state": 1}',
        '{"state": "gone"}',
        '{"state": "open", "note": 3}',
        '{"state": "open", "note": "\\ud800"}',
        '{"state": "open", "note": "' + "x" * 5000 + '"}',
    ],
)
def test_a_ticket_that_says_nothing_is_refused(client: Client, body: str) -> None:
    answer = client.post("/api/tickets/x", content=body, headers={**OWN, "content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_ticket_of_any_length_is_not_read(client: Client) -> None:
    body = '{"state": "open", "note": "' + "x" * LARGEST_BODY + '"}'
    assert client.post("/api/tickets/x", content=body, headers={**OWN, "content-type": "application/json"}).status_code == 413


def test_new_runs_show_up_when_the_page_asks_for_news(tmp_path: Path) -> None:
    make_store(tmp_path, series=2, runs=1)
    with asking(make_app(tmp_path, None)) as client:
        before = client.get("/api/meta.json").json()
        assert client.get("/api/revision.json").json()["revision"] == before["revision"]
        write_run(tmp_path, made_run(9), [step_entry("copy", 65536, [1.0, 1.1])])
        news = client.get("/api/revision.json").json()
        assert news["revision"] != before["revision"]
        assert (before["runs"], news["runs"]) == (1, 2)
        assert len(client.get("/api/runs.json").json()) == 2


def test_a_page_that_is_opened_or_loaded_again_shows_the_store_as_it_is(tmp_path: Path) -> None:
    make_store(tmp_path, series=2, runs=1)
    with asking(make_app(tmp_path, None)) as client:
        write_run(tmp_path, made_run(9), [step_entry("copy", 65536, [1.0, 1.1])])
        assert client.get("/api/meta.json").json()["runs"] == 2  # what every page asks for first
        assert len(client.get("/api/runs.json").json()) == 2


def test_a_store_that_is_not_there_has_empty_pages(tmp_path: Path) -> None:
    with asking(make_app(tmp_path / "none", None)) as client:
        assert client.get("/api/overview.json").json()["last_run"] is None
        assert client.get("/api/revision.json").json()["runs"] == 0


def test_a_busy_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"port {port} cannot be used.*Pass another --port"):
            serve(make_app(tmp_path, None), port, lambda _address: None)
