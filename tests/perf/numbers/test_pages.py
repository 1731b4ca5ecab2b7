from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from sonew_perf.errors import DataError, RecordError
from sonew_perf.numbers import catalog
from sonew_perf.numbers.__main__ import app
from sonew_perf.numbers.markers import fill, find, without_code
from sonew_perf.numbers.pages import checkout, pages, stale, write
from tests.perf.numbers.copies import change, change_case, copy_checkout

PERF: Final = Path("perf/README.md")
MEASURED: Final = re.compile(r"\b(ms|us|ns|loss|spread|x copy)\b|\bx (fused AdamW|optax\.adamw)")  # of a table's head
A_TIME: Final = re.compile(r"\d (ms|us|ns)\b|\d x fused AdamW")  # in prose


def by_hand(root: Path, page: Path) -> str:
    """A page without what is marked and without code."""
    content = (root / page).read_text(encoding="utf-8")
    return without_code(fill(content, find(content, page.as_posix()), lambda _: ""))


def measured_tables(text: str) -> list[str]:
    """Heads of the tables that have measured columns and a digit in a row."""
    found = re.findall(r"^(\|.*\|)\n\|(?:[-:]+\|)+\n((?:\|.*\n?)*)", text, re.MULTILINE)
    return [head for head, rows in found if MEASURED.search(head) and re.search(r"\d", rows)]


def test_the_committed_readmes_say_what_the_records_say() -> None:
    """After a change of a record or of a generator: `python -m sonew_perf.numbers --write`."""
    assert [(place.page, place.name, place.difference) for place in stale(checkout())] == []


@pytest.mark.parametrize("page", pages(checkout()), ids=str)
def test_no_measured_number_is_written_by_hand(page: Path) -> None:
    text = by_hand(checkout(), page)
    assert measured_tables(text) == []
    assert [line for line in text.splitlines() if A_TIME.search(line)] == []


def test_numbers_written_by_hand_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "| work | ms |\n|---|---|\n| step | 7.5 |\n\nIt takes 7.5 ms.\n\n| what | ms |\n|---|---|\n| GPU | none |\n"
    )
    text = by_hand(tmp_path, Path("page.md"))
    assert measured_tables(text) == ["| work | ms |"]
    assert A_TIME.search(text)


def test_every_source_is_quoted_somewhere_and_every_page_is_looked_at() -> None:
    top = checkout()
    names = [place.name for page in pages(top) for place in find((top / page).read_text(encoding="utf-8"), page.as_posix())]
    assert sorted(names) == sorted(catalog.SOURCES)
    assert {Path("README.md"), PERF, Path("kernels/README.md"), Path("sonew/torch/README.md")} < set(pages(top))


def test_a_changed_record_is_reported_where_it_is_quoted(tmp_path: Path) -> None:
    root = copy_checkout(tmp_path)
    change_case(root, catalog.STEP, "SONew band 1", median_ms=123.456)
    found = {(place.page.as_posix(), place.name): place.difference for place in stale(root)}
    assert set(found) == {("README.md", "speed"), ("perf/README.md", "step")}
    old, new = found["perf/README.md", "step"]
    assert old.startswith("- | **SONew band 1** | 7.38 |")
    assert new.startswith("+ | **SONew band 1** | 123 |")


def test_a_changed_readme_is_reported_and_written_anew(tmp_path: Path) -> None:
    root = copy_checkout(tmp_path)
    committed = {page: (root / page).read_bytes() for page in pages(root)}
    change(root / "README.md", "number: band-1-steps -->60 %<!--", "number: band-1-steps -->59 %<!--")
    change(root / PERF, "| copy | 1.10 | 45 % |", "| copy | 1.00 | 45 % |")
    assert [(place.page.as_posix(), place.name) for place in stale(root)] == [("README.md", "band-1-steps"), ("perf/README.md", "step")]
    assert write(root) == [Path("README.md"), PERF]
    assert {page: (root / page).read_bytes() for page in pages(root)} == committed
    assert write(root) == []


def test_nothing_is_written_where_any_page_is_broken(tmp_path: Path) -> None:
    root = copy_checkout(tmp_path)
    change(root / "README.md", "number: band-1-steps -->60 %<!--", "number: band-1-steps -->59 %<!--")
    change(root / PERF, "<!-- numbers: host -->", "<!-- numbers: hots -->")
    before = (root / "README.md").read_bytes()
    with pytest.raises(DataError, match=r"^perf/README\.md:\d+: no block is called 'hots'; there are \['band-1-steps', "):
        write(root)
    assert (root / "README.md").read_bytes() == before


def test_a_record_that_lacks_what_is_quoted_is_an_error_that_names_it(tmp_path: Path) -> None:
    root = copy_checkout(tmp_path)
    change_case(root, catalog.HOST, "AdamW foreach, gradients new", p20_ms=None)
    with pytest.raises(RecordError, match=rf"block 'host' cannot be written from {catalog.HOST}, .*KeyError: 'p20_ms'"):
        stale(root)
    change_case(root, catalog.STEP, "SONew band 1", case="SONew band 9")
    with pytest.raises(RecordError, match=rf"{catalog.STEP} has no case 'SONew band 1'; it has .*'SONew band 9'"):
        stale(root)
    (root / "perf/baselines" / catalog.STEP).unlink()
    with pytest.raises(RecordError, match=rf"{catalog.STEP} is missing or empty"):
        stale(root)


def test_a_sentence_does_not_take_a_block(tmp_path: Path) -> None:
    root = copy_checkout(tmp_path)
    change(root / "README.md", "<!-- number: band-1-steps -->", "<!-- number: training -->")
    with pytest.raises(DataError, match=r"^README\.md:\d+: 'training' is a block"):
        stale(root)


def test_the_command_says_what_is_out_of_date_and_writes_it(tmp_path: Path) -> None:
    root = copy_checkout(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*arguments, "--root", str(root)])
        return result.exit_code, result.output

    assert call("--check") == (0, "")
    change(root / "README.md", "number: band-1-steps -->60 %<!--", "number: band-1-steps -->59 %<!--")
    code, text = call()
    assert code == 1
    assert re.match(r"README\.md:\d+: band-1-steps is out of date\n  - 59 %\n  \+ 60 %\nRun ", text)
    assert call("--write") == (0, "written: README.md\n")
    assert call("--check") == (0, "")
    change(root / PERF, "<!-- numbers: host -->\n", "")
    code, text = call("--check")
    assert code == 2
    assert text.startswith("error: perf/README.md:")
