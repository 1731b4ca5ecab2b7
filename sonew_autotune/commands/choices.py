"""Which launches a training will ask for: the dispatch layer's choices for problems, here or on a GPU that is not here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Final, get_args

from sonew import dispatch, paths, tuned
from sonew.config import GRAFTS, Chain, GraftName, LaunchConfig, Problem
from sonew.errors import InvalidConfigError
from sonew.registry import BACKENDS
from sonew.tuned import ANY_DEVICE, Entry, Key
from sonew_autotune.commands.inspection import USER, stored_entries
from sonew_autotune.compiler.warm import Launch
from sonew_autotune.problems import cases_of, check_choice
from sonew_autotune.settings import Problems
from sonew_kernels.spec import SPECS, source_hash

TRITON: Final = "triton"
CPU: Final = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variants:
    """Which ways of training are covered: the plain one always, and each of these where set.

    Attributes:
        grafts: in place of adam. chain: of problems that are named. counters, sharded, stochastic_rounding: these as well.

    Raises:
        InvalidConfigError: an unknown graft or chain.
    """

    grafts: Sequence[str] = ()
    chain: str = "tensor"
    counters: bool = False
    sharded: bool = False
    stochastic_rounding: bool = False

    def __post_init__(self) -> None:
        """Check the names."""
        for graft in self.grafts:
            check_choice("graft", graft, GRAFTS, "Pass for example --graft adam.")
        _ = self.parsed_chain

    @property
    def parsed_chain(self) -> Chain:
        """The chain as in `sonew.config.Hyper`.

        Raises:
            InvalidConfigError: neither a name nor a length.
        """
        if self.chain in ("tensor", "row"):
            return "row" if self.chain == "row" else "tensor"
        if not (self.chain.isdecimal() and int(self.chain) > 0):
            msg = f"chain={self.chain!r} is not one of ['tensor', 'row'] or a length of at least 1. Pass for example --chain row."
            raise InvalidConfigError(msg)
        return int(self.chain)

    def launches(self, problem: Problem, config: LaunchConfig) -> Iterator[Launch]:
        """Every launch of these kinds for a problem. Whether a chain ends inside a tensor depends on its shape: both ways."""
        grafts: list[GraftName] = [name for name in get_args(GraftName) if name in self.grafts] or ["adam"]
        rounded = self.stochastic_rounding and problem.param_dtype == "bfloat16"
        chained = (False,) if problem.chain == "tensor" else (True, False)
        flags = itertools.product(chained, *(sorted({False, asked}) for asked in (self.sharded, self.counters, rounded)))
        for graft, (chains, pieces, counted, stochastic) in itertools.product(grafts, flags):
            yield Launch(
                band=problem.band,
                config=config,
                param_dtype=problem.param_dtype,
                grad_dtype=problem.grad_dtype,
                state_dtype=problem.state_dtype,
                direction_dtype=problem.direction_dtype,
                graft=graft,
                chained=chains,
                pieces=pieces,
                counted=counted,
                stochastic=stochastic,
            )


def _problem_of(key: Key, device: str) -> Problem:
    """A problem of the size bucket and the types of a stored entry."""
    return Problem(
        device=device,
        band=key.band,
        chain=key.chain,  # type: ignore[arg-type]  # checked by Problem
        param_dtype=key.param_dtype,
        grad_dtype=key.grad_dtype,
        state_dtype=key.state_dtype,
        direction_dtype=key.direction_dtype,
        total=2**key.total_log2,
        median=2**key.median_log2,
    )


def _named(problems: Problems, variants: Variants, device: str) -> list[Problem]:
    chain = variants.parsed_chain
    return [replace(case, chain=chain).problem for case in cases_of(problems, device)]


def _is_named(problems: Problems, variants: Variants) -> bool:
    asked = (problems.bands, problems.sizes, problems.models, problems.dtypes, problems.states)
    return any(asked) or variants.parsed_chain != "tensor"


def _environment(target: str, device: str) -> dict[str, str | int]:
    """Key fields of a GPU that is not here, with the compiler that is."""
    module = import_module(next(row.module for row in BACKENDS if row.name == TRITON))
    return {**module.environment(), "device": device, "capability": target, "threads": 0}


def _judged(entry: Entry, key: Key) -> tuned.Verdict:
    return tuned.judge("", entry, key, SPECS[TRITON].rejects(entry.config.as_dict(), key.band))


def chosen_there(problem: Problem, target: str, entries: Sequence[Entry]) -> list[LaunchConfig]:
    """What the dispatch layer would choose on GPUs of the target: one configuration per name of a GPU that an entry was measured on."""
    devices = dict.fromkeys([ANY_DEVICE, *(entry.key.device for entry in entries)])
    chosen = []
    for device in devices:
        key = tuned.make_key(problem, TRITON, _environment(target, device), source_hash(TRITON))
        found = tuned.best([_judged(entry, key) for entry in entries])
        chosen.append(found.entry.config if found is not None else dispatch.default_config(TRITON, problem.band))
    return list(dict.fromkeys(chosen))


def launches_there(problems: Problems, variants: Variants, target: str) -> list[Launch]:
    """Launches on a GPU that is not here, for the problems named, else those of the user's entries usable there, else the default ones."""
    stored, _ = stored_entries(paths.store_path())
    rows = [row for row in stored if row.entry.key.kernel == TRITON and row.entry.key.capability == target]
    usable = [row for row in rows if not _judged(row.entry, _own_key(row.entry, target)).reasons]
    wanted = [_problem_of(row.entry.key, "cuda") for row in usable if row.store == USER]
    if _is_named(problems, variants) or not wanted:
        wanted = _named(problems, variants, "cuda")
    entries = [row.entry for row in usable]
    return launches_of([(problem, config) for problem in wanted for config in chosen_there(problem, target, entries)], variants)


def _own_key(entry: Entry, target: str) -> Key:
    """The entry's key as it would be looked up for its own problem with this compiler."""
    problem = _problem_of(entry.key, "cuda")
    return tuned.make_key(problem, TRITON, _environment(target, entry.key.device), source_hash(TRITON))


def launches_of(pairs: Iterable[tuple[Problem, LaunchConfig]], variants: Variants) -> list[Launch]:
    """Every different launch of problems under their configurations."""
    return list(dict.fromkeys(launch for problem, config in pairs for launch in variants.launches(problem, config)))


def problems_here(problems: Problems, variants: Variants, device: str) -> list[Problem]:
    """The problems named, else those of the user's entries that are usable on this machine, else the default ones."""
    stored, _ = stored_entries(paths.store_path())
    family = CPU if device == "cpu" else TRITON
    rows = [row for row in stored if row.store == USER and row.entry.key.kernel == family and not row.reasons]
    wanted = [_problem_of(row.entry.key, device) for row in rows]
    if _is_named(problems, variants) or not wanted:
        wanted = _named(problems, variants, device)
    return list(dict.fromkeys(wanted))
