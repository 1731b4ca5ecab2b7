"""What may be done to the optimizer, as rules of a state machine: Hypothesis writes programs of them.

The model (`tests/sonew/torch_model.py`) takes each step with the reference from what the optimizer held before it, so that every step
is judged alone and to its last digits. Whatever else is done must keep every bit.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sonew.config import GRAFTS, Chain, GraftName
from sonew.torch import SONew
from tests.sonew.torch_bits import as_bits, skips
from tests.sonew.torch_model import BANDS, BETAS, CHAINS, DTYPES, GROWING, KINDS, POISONS, SENTINEL, Cell, Group, groups
from tests.strategies import seeds

LOSS_SCALE: Final = 8.0
BACKENDS: Final = st.sampled_from(("cpu", "reference"))
# What an optimizer is made with whose settings a checkpoint must replace.
OTHERS: Final[dict[str, Any]] = {"lr": 9.0, "betas": (0.1, 0.2), "eps": 5.0, "weight_decay": 0.7, "graft": "sgd", "chain": 2, "gamma": 0.5}
which = st.integers(0, 2)  # of the groups, modulo their number


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """What torch.save and the safe torch.load make of it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def through_a_pickle(optimizer: SONew) -> SONew:
    """A copy by way of bytes."""
    copied: SONew = pickle.loads(pickle.dumps(optimizer))  # noqa: S301  # our own bytes
    return copied


@dataclass(frozen=True)
class Saved:
    """A checkpoint and what the model held when it was made."""

    checkpoint: dict[str, Any]
    groups: tuple[Group, ...]
    cells: tuple[Cell, ...]


class Machine(RuleBasedStateMachine):
    """An optimizer and its model."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[Group] = []
        self.params: list[torch.Tensor] = []
        self.cells: list[Cell] = []
        self.saved: list[Saved] = []
        self.left: list[tuple[torch.Tensor, torch.Tensor]] = []  # tensors of optimizers that were left behind, and their bits then
        self.skipped = 0

    @initialize(first=st.lists(groups(), min_size=1, max_size=2), backend=BACKENDS)
    def start(self, first: list[Group], backend: str) -> None:
        self.groups = first
        self.params = [spec.param() for group in first for spec in group.specs]
        self.cells = [Cell.read(param) for param in self.params]
        self.optimizer = SONew(self._with_params([group.options() for group in first]), **OTHERS, backend=backend)
        self.save(copy.deepcopy)

    @rule(seed=seeds(), count=st.integers(1, 4), scaled=st.booleans())
    def take_ordinary_steps(self, seed: int, count: int, scaled: bool) -> None:
        for i in range(count):
            self._grads(("normal",), seed + i)
            self._step(scaled=scaled)

    @rule(kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=4), seed=seeds())
    def take_a_mixed_step(self, kinds: list[str], seed: int) -> None:
        self._grads(kinds, seed)
        self._step()

    @rule(seed=seeds(), tensor=st.integers(0, 8), at=st.integers(0, 40), value=st.sampled_from(POISONS))
    def take_a_poisoned_step(self, seed: int, tensor: int, at: int, value: float) -> None:
        self._grads(("normal",), seed)
        grad = self.params[tensor % len(self.params)].grad
        assert grad is not None
        if grad.numel():
            grad[np.unravel_index(at % grad.numel(), grad.shape)] = value
        self._step()

    @rule(seed=seeds(), norm=st.sampled_from((None, 1.0, *POISONS)), found=st.sampled_from((None, 0.0, 1.0)), scaled=st.booleans())
    def take_a_step_that_is_told_things(self, seed: int, norm: float | None, found: float | None, scaled: bool) -> None:
        self._grads(("normal", "none", "zero"), seed)
        self._step(norm=norm, found=found, scaled=scaled)

    @rule(set_to_none=st.booleans())
    def zero_grad(self, set_to_none: bool) -> None:
        self.optimizer.zero_grad(set_to_none=set_to_none)

    @rule(index=which, factor=st.sampled_from((0.1, 0.0, 1.0)), as_tensor=st.booleans(), then_step=st.booleans())
    def change_lr(self, index: int, factor: float, as_tensor: bool, then_step: bool) -> None:
        index %= len(self.groups)
        lr = torch.tensor(factor * self.groups[index].unit)
        self._change(index, lr=lr.item())
        if as_tensor:
            self.optimizer.param_groups[index]["lr"] = lr
        self._look(then_step)

    @rule(index=which, factor=st.sampled_from((0.0, 0.05, 0.1)), coupled=st.booleans(), then_step=st.booleans())
    def change_weight_decay(self, index: int, factor: float, coupled: bool, then_step: bool) -> None:
        index %= len(self.groups)
        size = self.groups[index].scale if coupled else 1.0
        self._change(index, weight_decay=factor * size, decoupled_weight_decay=not coupled)
        self._look(then_step)

    @rule(index=which, maximize=st.booleans(), skip_nonfinite=st.booleans(), then_step=st.booleans())
    def turn_switches(self, index: int, maximize: bool, skip_nonfinite: bool, then_step: bool) -> None:
        index %= len(self.groups)
        self._change(index, maximize=maximize)
        self.groups[index] = replace(self.groups[index], skip_nonfinite=skip_nonfinite)
        self.optimizer.param_groups[index]["skip_nonfinite"] = skip_nonfinite
        self._look(then_step)

    @rule(index=which, chain=st.sampled_from(CHAINS), betas=st.sampled_from(BETAS), graft=st.sampled_from(GRAFTS), then_step=st.booleans())
    def change_method(self, index: int, chain: Chain, betas: tuple[float, float], graft: GraftName, then_step: bool) -> None:
        """The old averages do not suit the new chains and decays: damping keeps their windows sound."""
        index %= len(self.groups)
        self._change(index, chain=chain, betas=betas, graft=graft, eps_rel=GROWING)
        self._change(index, lr=0.1 * self.groups[index].unit)
        self._look(then_step)

    @rule(index=which, band=st.sampled_from(BANDS), then_step=st.booleans())
    def change_band(self, index: int, band: int, then_step: bool) -> None:
        index %= len(self.groups)
        self._take_bands([band if i == index else group.hyper.band for i, group in enumerate(self.groups)])
        self.optimizer.param_groups[index]["band"] = band
        self._look(then_step)

    @rule(tensor=st.integers(0, 8), dtype=st.sampled_from((None, *DTYPES)))
    def move_a_parameter(self, tensor: int, dtype: torch.dtype | None) -> None:
        """Elsewhere in memory, perhaps as another type."""
        param = self.params[tensor % len(self.params)]
        param.grad = None
        param.data = param.data.clone() if dtype is None else param.data.to(dtype, copy=True)
        self.cells[tensor % len(self.params)] = replace(self.cells[tensor % len(self.params)], param=Cell.read(param).param)

    @precondition(lambda self: len(self.groups) < 3)
    @rule(group=groups())
    def add_a_group(self, group: Group) -> None:
        params = [spec.param() for spec in group.specs]
        self.groups.append(group)
        self.params += params
        self.cells += [Cell.read(param) for param in params]
        self.optimizer.add_param_group({"params": params} | group.options())

    @rule()
    def prepare(self) -> None:
        """Zeros as state everywhere, and no other change."""
        plans = self.optimizer.prepare()
        assert sum(plan.problem.total for plan in plans) == sum(param.numel() for param in self.params)
        self._fit_rows()
        self.cells = [cell.begun(group.hyper.band) for cell, group in zip(self.cells, self._group_of(), strict=True)]

    @rule(transport=st.sampled_from((copy.deepcopy, through_a_file)))
    def save(self, transport: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.saved.append(Saved(transport(self.optimizer.state_dict()), tuple(self.groups), tuple(self.cells)))

    @rule(back=st.integers(0, 3), with_params=st.booleans())
    def load_in_place(self, back: int, with_params: bool) -> None:
        """Groups that were added since make torch refuse, and then nothing changes."""
        saved = self.saved[-1 - back % len(self.saved)]
        if len(saved.groups) < len(self.groups):
            with pytest.raises(ValueError, match="parameter group"):
                self.optimizer.load_state_dict(saved.checkpoint)
            return
        self._load(saved, self.groups, with_params=with_params)

    @rule(back=st.integers(0, 3), backend=BACKENDS, band=st.sampled_from((None, *BANDS)), guarded=st.booleans(), with_params=st.booleans())
    def load_into_a_fresh_one(self, back: int, backend: str, band: int | None, guarded: bool, with_params: bool) -> None:
        """Groups that were added since are gone."""
        saved = self.saved[-1 - back % len(self.saved)]
        self._leave(self.params[len(saved.cells) :])
        self.params, self.cells = self.params[: len(saved.cells)], self.cells[: len(saved.cells)]
        self.saved = [other for other in self.saved if len(other.groups) <= len(saved.groups)]
        own = [group if band is None else group.with_band(band) for group in saved.groups]
        self.groups = [replace(group, skip_nonfinite=guarded) for group in own]
        self._make_anew(backend)
        self._load(saved, self.groups, with_params=with_params)

    @rule(backend=BACKENDS)
    def switch_backend(self, backend: str) -> None:
        """In mid-run, from one optimizer into the next."""
        self._leave([])
        checkpoint = self.optimizer.state_dict()
        self._make_anew(backend)
        self.optimizer.load_state_dict(checkpoint)

    @rule(copier=st.sampled_from((copy.deepcopy, through_a_pickle)))
    def go_on_with_a_copy(self, copier: Callable[[SONew], SONew]) -> None:
        self._leave(self.params)
        self.optimizer = copier(self.optimizer)
        self.params = [param for group in self.optimizer.param_groups for param in group["params"]]
        self.skipped = 0

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        for param, cell in zip(self.params, self.cells, strict=True):
            cell.assert_held(param, self.optimizer.state.get(param, {}))
            stored = torch.empty(0, dtype=param.dtype).set_(param.untyped_storage())
            assert stored.numel() != 2 * param.numel() or bool((stored[1::2] == SENTINEL).all()), "memory between elements was written"
        if self.groups:
            assert skips(self.optimizer) == self.skipped

    def teardown(self) -> None:
        """Whatever was left behind stayed as it was."""
        assert all(torch.equal(as_bits(tensor), bits) for tensor, bits in self.left), "an optimizer changed what belongs to another"

    def _group_of(self) -> list[Group]:
        return [group for group in self.groups for _ in group.specs]

    def _with_params(self, options: list[dict[str, Any]]) -> list[dict[str, Any]]:
        params = iter(self.params)
        return [chosen | {"params": [next(params) for _ in group.specs]} for chosen, group in zip(options, self.groups, strict=True)]

    def _make_anew(self, backend: str) -> None:
        """An optimizer that has of the groups' settings only those that no checkpoint brings."""
        own = [{"band": group.hyper.band, "skip_nonfinite": group.skip_nonfinite} for group in self.groups]
        self.optimizer = SONew(self._with_params(own), **OTHERS, backend=backend)
        self.skipped = 0

    def _change(self, index: int, **changes: Any) -> None:
        self.optimizer.param_groups[index].update(changes)
        if betas := changes.pop("betas", None):
            changes |= {"beta1": betas[0], "beta2": betas[1]}
        self.groups[index] = self.groups[index].with_settings(**changes)

    def _look(self, then_step: bool) -> None:
        """What a change does shows in the next step, which may come at once or after other changes."""
        if then_step:
            self._grads(("normal",), seed=0)
            self._step()

    def _take_bands(self, bands: list[int]) -> None:
        """The model's groups get these bands, and both the damping that goes with it."""
        self.groups = [group.with_band(band) for group, band in zip(self.groups, bands, strict=True)]
        for group, held in zip(self.groups, self.optimizer.param_groups, strict=True):
            held["eps_rel"] = group.hyper.eps_rel

    def _fit_rows(self) -> None:
        """Statistics follow the band when launches are planned, not before."""
        self.cells = [cell.fitted(group.hyper.band) for cell, group in zip(self.cells, self._group_of(), strict=True)]

    def _load(self, saved: Saved, own: list[Group], *, with_params: bool) -> None:
        self.optimizer.load_state_dict(saved.checkpoint)
        if with_params:
            for param, cell in zip(self.params, saved.cells, strict=True):
                param.detach().copy_(cell.param)
            self.cells = [Cell.read(param) for param in self.params]
        self.groups = [replace(group, skip_nonfinite=mine.skip_nonfinite) for group, mine in zip(saved.groups, own, strict=True)]
        self.cells = [replace(cell, param=mine.param) for cell, mine in zip(saved.cells, self.cells, strict=True)]
        self._take_bands([group.hyper.band for group in own])

    def _leave(self, params: list[torch.Tensor]) -> None:
        """Note the state, and these parameters, which nobody may touch from now on."""
        tensors = [*params, *(tensor for state in self.optimizer.state.values() for tensor in state.values())]
        self.left += [(tensor, as_bits(tensor)) for tensor in tensors]

    def _grads(self, kinds: tuple[str, ...] | list[str], seed: int) -> None:
        members = [(group, spec) for group in self.groups for spec in group.specs]
        for i, (param, (group, spec)) in enumerate(zip(self.params, members, strict=True)):
            kind = kinds[i % len(kinds)]
            if kind != "kept":
                param.grad = None if kind == "none" else spec.grad(kind, group.scale, seed).to(param.dtype)

    def _unscaled(self, scale: float) -> list[np.ndarray | None]:
        return [None if param.grad is None else param.grad.to(torch.float32).numpy() / np.float32(scale) for param in self.params]

    def _step(self, *, norm: float | None = None, found: float | None = None, scaled: bool = False) -> None:
        """A step with the norm that clipping returns, and what `GradScaler` hands over."""
        scale = LOSS_SCALE if scaled else 1.0
        told = {"found_inf": found, "grad_scale": scale if scaled else None}
        grads = self._unscaled(scale)
        poisoned = [grad is not None and not np.isfinite(grad).all() for grad in grads]
        skip = bool(found) or (norm is not None and not np.isfinite(norm))
        skip |= any(bad and group.skip_nonfinite for bad, group in zip(poisoned, self._group_of(), strict=True))
        self.optimizer.__dict__.update({name: torch.tensor([value]) for name, value in told.items() if value is not None})
        self.optimizer.step(total_norm=None if norm is None else torch.tensor(norm))
        for name in told:
            self.optimizer.__dict__.pop(name, None)
        for before, after in zip(grads, self._unscaled(scale), strict=True):
            assert before is None or (after is not None and np.array_equal(before, after, equal_nan=True)), "a gradient was written"
        self.skipped += skip
        self._fit_rows()
        for i, (param, grad, group) in enumerate(zip(self.params, grads, self._group_of(), strict=True)):
            if grad is None:
                continue
            self.cells[i] = self.cells[i].begun(group.hyper.band)
            if not skip:
                self.cells[i].assert_step(grad, group.hyper, param, self.optimizer.state[param])
                self.cells[i] = Cell.read(param, self.optimizer.state[param])
