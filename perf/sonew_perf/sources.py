"""What git says of the sources that are measured."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sonew_perf.process import ROOT

GIT_TIMEOUT_S: Final = 60.0
LARGEST_HASHED: Final = 2**20  # of a new file more than its name and size counts only up to here


@dataclass(frozen=True, slots=True)
class Source:
    """The checkout that was measured.

    Attributes:
        commit: 40 hex digits. commit_date: ISO 8601. branch: empty where none is checked out.
        modified: whether the tree differs from the commit, None where nobody can tell.
        diff: short hash of the difference, empty where there is none. All are empty where there is no checkout or no git.
    """

    commit: str = ""
    commit_date: str = ""
    branch: str = ""
    modified: bool | None = None
    diff: str = ""


def git(root: Path, *arguments: str) -> bytes | None:
    """What git prints, None where it fails or is not here."""
    program = shutil.which("git")
    if program is None:
        return None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"GIT_OPTIONAL_LOCKS": "0"}
    command = [program, "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=GIT_TIMEOUT_S, env=environment)  # noqa: S603  # from PATH
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def text_of(printed: bytes | None) -> str:
    """What was printed, without the space around it; "" where nothing was."""
    return "" if printed is None else printed.decode(errors="replace").strip()


def _difference(root: Path) -> str | None:
    """Short hash of what differs from the commit, new files by name and content; empty where nothing does, None where git fails."""
    changed = git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--no-color")
    listed = git(root, "ls-files", "--others", "--exclude-standard", "-z")
    if changed is None or listed is None:
        return None
    new = sorted(name for name in listed.split(b"\0") if name)
    if not changed and not new:
        return ""
    digest = hashlib.sha256(changed)
    for name in new:
        path = root / os.fsdecode(name)
        digest.update(b"\0" + name)
        if path.is_file() and not path.is_symlink():
            digest.update(str(path.stat().st_size).encode())
            with path.open("rb") as file:
                digest.update(file.read(LARGEST_HASHED))
    return digest.hexdigest()[:12]


def is_checkout(root: Path) -> bool:
    """Whether a folder is the top of a checkout, as that of an installed package is not."""
    top = text_of(git(root, "rev-parse", "--show-toplevel"))
    return bool(top) and Path(top).resolve() == root.resolve()


def read_source(root: Path = ROOT) -> Source:
    """What git says of a checkout; nothing where `root` is not the top of one, as an installed package is not."""
    if not is_checkout(root):
        return Source()
    difference = _difference(root)
    return Source(
        commit=text_of(git(root, "rev-parse", "HEAD")),
        commit_date=text_of(git(root, "show", "-s", "--format=%cI", "HEAD")),
        branch=text_of(git(root, "symbolic-ref", "--short", "-q", "HEAD")),
        modified=None if difference is None else bool(difference),
        diff=difference or "",
    )
