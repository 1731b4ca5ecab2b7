"""A copy of the READMEs and records that a test may damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sonew_perf.numbers.pages import checkout, pages
from sonew_perf.numbers.record import FOLDER


def copy_checkout(target: Path) -> Path:
    """The committed READMEs and records, and nothing else, in a folder."""
    top = checkout()
    for page in pages(top):
        (target / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(top / page, target / page)
    shutil.copytree(top / FOLDER, target / FOLDER)
    return target


def change(path: Path, old: str, new: str) -> None:
    """Replace what stands in a file exactly once."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def change_case(root: Path, record: str, case: str, /, **fields: object) -> None:
    """Change fields of one case of a copied record; a field given as None is dropped."""
    path = root / FOLDER / record
    content = json.loads(path.read_text(encoding="utf-8"))
    (entry,) = (entry for entry in content["entries"] if entry["case"] == case)
    for name, value in fields.items():
        entry.pop(name)
        if value is not None:
            entry[name] = value
    path.write_text(json.dumps(content), encoding="utf-8")
