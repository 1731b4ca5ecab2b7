"""The two sides of a comparison as users name them: a commit or the working tree, and the configurations that it steps with."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sonew
from sonew.dispatch import TUNING_MODES
from sonew.errors import InvalidConfigError
from sonew_perf.process import ROOT
from sonew_perf.sources import git, is_checkout, read_source, text_of

WORKING_TREE: Final = "."
INSTALLED: Final = Path(sonew.__file__).resolve().parents[1]  # the checkout, or where packages are installed
GRAMMAR: Final = (
    "A side is a commit, branch or tag, or . for the working tree, and if you like @ and its configurations: on, off, pinned, or a "
    "store of tuned entries: main, .@off, v0.1.0@winners.json"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side.

    Attributes:
        spec: as it was named. commit: 40 hex digits, "" where the tree is no checkout. commit_date: ISO 8601 or "".
        modified: whether it is a working tree that differs from its commit. diff: short hash of the difference, or "".
        tuning: "on", "off" or "pinned". store: file of tuned entries, None for the user's own.
    """

    spec: str
    commit: str
    commit_date: str = ""
    modified: bool = False
    diff: str = ""
    tuning: str = "on"
    store: Path | None = None

    @property
    def in_place(self) -> bool:
        """Whether it is measured where it lies."""
        return self.spec.partition("@")[0] == WORKING_TREE

    @property
    def title(self) -> str:
        """Short, for headings."""
        where = ("working tree" if self.in_place else self.spec.partition("@")[0]) + (" (modified)" if self.modified else "")
        configured = str(self.store.name) if self.store is not None else "" if self.tuning == "on" else f"tuning {self.tuning}"
        return ", ".join(part for part in (f"{where} {self.commit[:9]}".strip(), configured) if part)

    def described(self) -> dict[str, object]:
        """As a record says it."""
        store = hashlib.sha256(self.store.read_bytes()).hexdigest()[:12] if self.store is not None else ""
        known: dict[str, object] = {"spec": self.spec, "title": self.title, "commit": self.commit, "commit_date": self.commit_date}
        return known | {"modified": self.modified, "diff": self.diff, "tuning": self.tuning, "store": store}


def parse_side(spec: str, *, root: Path = ROOT) -> Side:
    """The side that a user names.

    Raises:
        InvalidConfigError: no such commit, no such file, or a name that is none.
    """
    name, _, config = spec.partition("@")
    if not name or name.startswith("-"):
        msg = f"side={spec!r} names no commit. {GRAMMAR}."
        raise InvalidConfigError(msg)
    tuning, store = "on", None
    if config in TUNING_MODES:
        tuning = config
    elif config:
        store = Path(config)
        if not store.is_file():
            msg = f"side={spec!r}: {config!r} is neither one of {list(TUNING_MODES)} nor a file. {GRAMMAR}."
            raise InvalidConfigError(msg)
        store = store.resolve()
    if name == WORKING_TREE:
        here = read_source(root)
        known = {"commit": here.commit, "commit_date": here.commit_date, "modified": bool(here.modified), "diff": here.diff}
        return Side(spec=spec, **known, tuning=tuning, store=store)  # type: ignore[arg-type]  # each as its field
    found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}") if is_checkout(root) else None
    commit = text_of(found)
    if not commit:
        msg = f"side={spec!r}: {name!r} is no commit that git knows in {root}. {GRAMMAR}."
        raise InvalidConfigError(msg)
    date = text_of(git(root, "show", "--no-patch", "--format=%cI", commit))
    return Side(spec=spec, commit=commit, commit_date=date, tuning=tuning, store=store)


@contextmanager
def checked_out(side: Side, *, root: Path = ROOT) -> Iterator[Path]:
    """The folder of a side while it is measured: that of the SONew that runs here, or the commit unpacked into a temporary folder.

    `git archive` and not `git worktree`: nothing is registered in the user's repository, so a kill leaves nothing to prune.

    Raises:
        InvalidConfigError: the commit cannot be unpacked.
    """
    if side.in_place:
        yield root if root != ROOT else INSTALLED
        return
    with tempfile.TemporaryDirectory(prefix=f"sonew-{side.commit[:9]}-") as folder:
        packed = Path(folder) / "commit.tar"
        if git(root, "archive", "--format=tar", f"--output={packed}", side.commit) is None:
            msg = f"side={side.spec!r}: git cannot unpack {side.commit}. Is it a shallow clone? Run git fetch --unshallow."
            raise InvalidConfigError(msg)
        tree = Path(folder) / "tree"
        with tarfile.open(packed) as archive:
            archive.extractall(tree, filter="data")
        packed.unlink()
        yield tree
