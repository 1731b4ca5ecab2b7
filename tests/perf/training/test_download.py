from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from sonew_perf.errors import DataError
from sonew_perf.training.tasks import download
from sonew_perf.training.tasks.download import TRAIN_IMAGES, Published, fetch, fetch_mnist

CONTENT = bytes(range(256)) * 40
PACKED = gzip.compress(CONTENT)
PUBLISHED = Published(name="file.gz", size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
BASELINES = Path(__file__).parents[3] / "perf" / "baselines"


class Handler(BaseHTTPRequestHandler):
    """Answers each path with what it stands for; the first part is the mirror's name.

    Attributes:
        asked: paths, in order. answers: content by the mirror's name; 404 for one that is not in it.
        released: until then "silent" says nothing.
    """

    asked: list[str]
    answers: dict[str, bytes]
    released: Event

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
        """Keeps quiet."""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        mirror = self.path.split("/")[1]
        if mirror == "silent":
            self.released.wait(10)
            return
        if mirror not in self.answers:
            self.send_error(404)
            return
        content = self.answers[mirror]
        self.send_response(200)
        if mirror != "endless":
            self.send_header("content-length", str(len(content) * (2 if mirror == "stops" else 1)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(handler: type[Handler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        handler.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> type[Handler]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answers = {
        "good": PACKED,
        "packed-anew": gzip.compress(CONTENT, 1),
        "other": gzip.compress(CONTENT[::-1]),
        "page": b"<html>moved</html>",
    }
    answers |= {"stops": PACKED[:-9], "short": gzip.compress(CONTENT[:-1]), "bomb": gzip.compress(bytes(10**6)), "endless": bytes(3000)}
    return type("FileHandler", (Handler,), {"asked": [], "answers": answers, "released": Event()})


@pytest.fixture
def site(handler: type[Handler]) -> Iterator[str]:
    with serving(handler) as address:
        yield address


def test_the_file_is_fetched_once_and_reused(tmp_path: Path, handler: type[Handler], site: str) -> None:
    told: list[tuple[int, int | None]] = []
    for _ in range(2):
        fetch(PUBLISHED, [f"{site}good/"], tmp_path / "new" / "folder", told=lambda *heard: told.append(heard))
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["file.gz"]
    assert (tmp_path / "new" / "folder" / "file.gz").read_bytes() == PACKED
    assert handler.asked == ["/good/file.gz"]
    assert told[-1] == (len(PACKED), len(PACKED))


@pytest.mark.parametrize("there", [PACKED[:-5], gzip.compress(b"other"), b""])
def test_a_torn_or_foreign_file_is_replaced_and_never_kept(tmp_path: Path, site: str, there: bytes) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(there)
    fetch(PUBLISHED, [f"{site}packed-anew/"], tmp_path, told=lambda *_: None)
    assert gzip.decompress(path.read_bytes()) == CONTENT
    path.write_bytes(there)
    with pytest.raises(DataError):
        fetch(PUBLISHED, [f"{site}missing/"], tmp_path, told=lambda *_: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mirror", "said"),
    [
        ("missing", r"missing/file\.gz: HTTP Error 404: Not Found"),
        ("other", r"it sent another file: SHA-256 [0-9a-f]{64} unpacked, expected [0-9a-f]{64}"),
        ("page", r"it sent another file: 18 bytes that are no whole gzip file: Not a gzipped file"),
        ("stops", r"it sent another file: \d+ bytes that are no whole gzip file"),
        ("short", r"it sent another file: 10239 bytes unpacked, expected 10240"),
        ("bomb", r"it sent another file: more than 10240 bytes unpacked, expected 10240"),
        ("endless", r"endless/file\.gz: it sends more than the 2000 bytes that are accepted"),
        ("silent", r"silent/file\.gz: timed out"),
    ],
)
def test_a_mirror_that_fails_is_named_with_the_reason_and_the_next_is_asked(
    tmp_path: Path, site: str, mirror: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LARGEST", 2000)
    with pytest.raises(DataError, match=said) as caught:
        fetch(PUBLISHED, [f"{site}{mirror}/"], tmp_path, told=lambda *_: None, patience=0.1)
    assert f"{site}{mirror}/file.gz" in str(caught.value)
    assert "name its folder: --data FOLDER" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    fetch(PUBLISHED, [f"{site}{mirror}/", f"{site}good/"], tmp_path, told=lambda *_: None, patience=0.1)
    assert (tmp_path / "file.gz").read_bytes() == PACKED


def test_a_mirror_that_cannot_be_reached_or_is_no_address_is_named(tmp_path: Path, handler: type[Handler]) -> None:
    with serving(handler) as gone:
        pass
    with pytest.raises(DataError, match=rf"{gone}file\.gz: urlopen error .*refused; nowhere/file\.gz: unknown url type"):
        fetch(PUBLISHED, [gone, "nowhere/"], tmp_path, told=lambda *_: None)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, site: str) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match=r"taken/file\.gz cannot be written: Not a directory.*SONEW_CACHE_DIR"):
        fetch(PUBLISHED, [f"{site}good/"], tmp_path / "taken", told=lambda *_: None)


def test_mnist_goes_to_the_users_cache_and_only_the_published_images_do(
    tmp_path: Path, handler: type[Handler], site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONEW_CACHE_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"it sent another file: 10240 bytes unpacked, expected 47040016"):
        fetch_mnist([f"{site}good/"])
    assert handler.asked == ["/good/train-images-idx3-ubyte.gz"]
    assert not list(tmp_path.rglob("*.gz"))

    monkeypatch.setattr(download, "TRAIN_IMAGES", Published(name=TRAIN_IMAGES.name, size=PUBLISHED.size, sha256=PUBLISHED.sha256))
    assert fetch_mnist([f"{site}good/"]) == tmp_path / "mnist"
    assert (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").read_bytes() == PACKED


def test_the_images_of_the_committed_records_are_the_published_ones() -> None:
    entries = json.loads((BASELINES / "2026-11-22-epyc2-training.json").read_text())["entries"]
    assert {entry["images"]["sha256"] for entry in entries} == {TRAIN_IMAGES.sha256}
    assert TRAIN_IMAGES.size == 16 + 60_000 * 28 * 28
