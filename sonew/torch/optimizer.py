"""The optimizer: a `torch.optim.Optimizer` that steps launch groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from sonew.config import Chain, GraftName, Hyper, Plan
from sonew.dispatch import Tuning
from sonew.errors import CaptureError
from sonew.layout import state_layout
from sonew.rounding import tensor_seed
from sonew.torch.capture import Captures, check_capturable, check_launch, is_capturing
from sonew.torch.groups import GroupPlan, LaunchGroup, check_grad, dtype_name, plan_group
from sonew.torch.settings import Settings, check_group, fill_gamma

__all__ = ["SONew"]


class SONew(torch.optim.Optimizer):
    """Sparsified Online Newton: Adam's price in memory and time, the inverse of a band of the second moments as preconditioner.

    Args:
        params: parameters or parameter groups; every keyword below may be set per group.
        lr: step size, >= 0; a float, or a floating tensor of one element, which is changed in place. float32 on the parameters'
            device, it is read there by the GPU's kernels; any other is read by the host in every step.
        betas: decays of momentum and statistics, in [0, 1).
        eps: absolute damping of the statistics' diagonal, >= 0.
        weight_decay: decoupled decay, scaled by lr, >= 0.
        band: off-diagonals kept, >= 0; 1 is tridiagonal, the paper's choice.
        eps_rel: relative damping of the diagonal, >= 0.
        gamma: a pivot at or below gamma times its diagonal entry drops the column's couplings, >= 0. None: 0, or with bfloat16 state
            `sonew.config.default_gamma` of the beta2 given here, below which a pivot is rounding.
        graft: whose norm a tensor's update takes: "adam", "adam_uncorrected", "rmsprop", "sgd", or "none".
        chain: "tensor" (a tensor's elements in row-major order form one chain), "row" (each last axis) or a length.
        state_dtype: torch.float32; torch.bfloat16 halves the state's memory and traffic, its averages are rounded stochastically
            (`sonew.rounding`); torch.float64 is for reference work.
        direction_dtype: torch.float32, or torch.bfloat16 for a smaller scratch between the two passes of a step.
        stochastic_rounding: write bfloat16 parameters rounded stochastically, so that updates below their last digit are not lost.
        seed: of all stochastic rounding, in [0, 2^64); equal seeds give equal bits.
        backend: "auto", "triton" (GPU), "cpu" (compiled) or "reference"; an explicit one never falls back.
        tuning: "on": configurations tuned on this machine, then shipped ones; "pinned": shipped ones only; "off": defaults.
        capturable: make every step ready to be followed by a capture in a CUDA graph.

    CUDA graphs: with `capturable=True` a step of the "triton" backend may be captured, by itself or with forward and backward
    (`zero_grad(set_to_none=True)` before the capture). Each capture follows an eager step with the same tensors and settings, and
    what cannot be right is refused before anything is launched. Replays read a tensor `lr` where it lies, so schedulers may fill
    it between them; a float `lr` and the other numbers follow `push_settings`. Eager steps in between disturb no graph. What
    graphs read stays allocated as long as the optimizer: keep it while they are replayed. Copies and pickles hold no captures.

    State per parameter of shape S (see `sonew.layout`): `momentum` S, `stats` (band + 1, *S), `count` int32 scalar.
    It is kept in `state_dtype` whatever the parameter's type: (band + 2) numbers per element.

    Raises:
        InvalidConfigError: a setting outside its range (a `ValueError`).
        UnsupportedProblemError: complex or sparse parameters or gradients (a `NotImplementedError`).
        BackendUnavailableError: an explicit backend that cannot run here, raised by the first step (a `RuntimeError`).
        CaptureError: a step that cannot be captured as it stands, raised by the step (a `RuntimeError`).

    Source: SONew, NeurIPS 2023, arXiv 2311.10085.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        band: int = 1,
        eps_rel: float = 0.0,
        gamma: float | None = None,
        graft: GraftName = "adam",
        chain: Chain = "tensor",
        state_dtype: torch.dtype | str = torch.float32,
        direction_dtype: torch.dtype | str = torch.float32,
        stochastic_rounding: bool = False,
        seed: int = 0,
        backend: str = "auto",
        tuning: Tuning = "on",
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "band": band,
            "eps_rel": eps_rel,
            "gamma": gamma,
            "graft": graft,
            "chain": chain,
            "state_dtype": dtype_name(state_dtype),
            "direction_dtype": dtype_name(direction_dtype),
            "stochastic_rounding": stochastic_rounding,
            "seed": seed,
            "backend": backend,
            "tuning": tuning,
            "capturable": capturable,
        }
        self._plans: dict[int, GroupPlan] = {}
        self._settings: dict[int, Settings] = {}
        self._captures = Captures()
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with settings of its own where given."""
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
        except Exception:
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle or a copy; plans are made anew."""
        self._plans, self._settings = {}, {}
        self._captures = self.__dict__.get("_captures") or Captures()  # a load leaves graphs the memory that they read
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            fill_gamma(group)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy holds: settings and state, no plans."""
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict; the state keeps the type it was saved in, also beside bfloat16 parameters.

        How it is stepped is this optimizer's own business: `backend`, `tuning` and `capturable` stay as they are here.
        """
        own = [{name: group[name] for name in ("backend", "tuning", "capturable")} for group in self.param_groups]
        final: dict[str, Any] = state_dict

        def keep(_optimizer: torch.optim.Optimizer, loaded: dict[str, Any]) -> None:
            nonlocal final
            final = loaded

        with self.register_load_state_dict_pre_hook(keep):  # last in line, so it sees what the other hooks made of it
            super().load_state_dict(state_dict)
        for group, kept in zip(self.param_groups, own, strict=True):
            group.update(kept)
        saved_ids = [index for group in final["param_groups"] for index in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for index, param in zip(saved_ids, params, strict=True):
            for name, value in final["state"].get(index, {}).items():
                if isinstance(value, torch.Tensor):  # torch casts floating state to the parameter's type on load
                    self.state[param][name] = value.detach().to(param.device).clone(memory_format=torch.contiguous_format)
        self._plans, self._settings = {}, {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch types it by overloads
        """Take one step.

        Args:
            closure: recomputes the loss and its gradients.

        Returns:
            The closure's loss, or None.
        """
        capturing = is_capturing()
        if capturing:
            check_capturable(self.param_groups)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        ready = [
            (index, group, settings, launch)
            for index, group in enumerate(self.param_groups)
            for settings in [self._group_settings(index, group)]
            for launch in self._ready_launch_groups(index, group, settings.hyper, capturing=capturing)
        ]
        for _, _, settings, launch in ready:  # nothing is launched before all are ready
            if capturing:
                check_launch(launch, settings)
            else:
                settings.bring_to(launch)
        for index, group, settings, launch in ready:
            if capturing:
                self._captures.step(index, launch, settings)
            else:
                launch.step(capturable=group["capturable"])
            # compiled backends write through addresses: tell autograd, which otherwise trusts graphs that saved the old values
            torch.autograd.graph.increment_version([leaf.param for leaf in launch.leaves if leaf.param.grad is not None])
        return loss

    def push_settings(self) -> None:
        """Bring changed numbers of all groups to where captured steps read them: a float lr, weight_decay, betas, eps, eps_rel, gamma.

        Call it outside captures, after writing into `param_groups` and before the next replay. A tensor lr needs no push.

        Raises:
            CaptureError: a capture is under way, or a changed setting (band, graft, chain, stochastic_rounding, another lr tensor) is
                compiled into the last captured step: take an eager step and capture again.
            InvalidConfigError: a setting outside its range.
        """
        if is_capturing():
            msg = "push_settings() cannot be captured: call it before the capture or between replays."
            raise CaptureError(msg)
        reached = []
        for index, group in enumerate(self.param_groups):
            settings = self._group_settings(index, group)
            planned = self._plans[index].launches if index in self._plans else []
            reached += [(settings, launch) for launch in (*planned, *self._captures.launches(index, settings))]
        for settings, launch in reached:
            settings.bring_to(launch)

    def plans(self) -> list[Plan]:
        """The plans in use, one per launch group: backend, configuration, and where it comes from. Empty before the first step."""
        groups = range(len(self.param_groups))
        return [launch.plan for index, known in self._plans.items() if index in groups for launch in known.launches]

    def _group_settings(self, index: int, group: dict[str, Any]) -> Settings:
        """The group's settings, validated again only when one of them changed (schedulers write into the group)."""
        settings = self._settings[index] = Settings.of(group, self._settings.get(index))
        return settings

    def _ready_launch_groups(self, index: int, group: dict[str, Any], hyper: Hyper, *, capturing: bool) -> list[LaunchGroup]:
        """The group's launch groups, planned anew when a tensor joined or changed, or a setting that the plan rests on."""
        names = ("band", "chain", "state_dtype", "direction_dtype", "seed", "backend", "tuning")
        position = sum(len(other["params"]) for other in self.param_groups[:index])  # seeds follow it
        plan_key = (torch.get_num_threads(), position, *(group[name] for name in names))  # tuned entries hold for a number of threads
        known = self._plans.get(index)
        joined = [param for param in group["params"] if param.grad is not None and not self.state.get(param)]
        if known and known.covers(plan_key, group["params"]) and not joined and not any(x.is_stale(self.state) for x in known.launches):
            return known.launches
        if capturing:
            msg = "tensors, gradients or settings are not those of the last eager step: take one eager step with them before the capture."
            raise CaptureError(msg)
        for param in joined:
            check_grad(param)
            self._init_state(param, group, hyper)
        known = self._plans[index] = GroupPlan(plan_key, tuple(group["params"]), plan_group(self.state, group, hyper, self._seeds()))
        return known.launches

    def _seeds(self) -> dict[torch.Tensor, int]:
        """Each parameter's seed of stochastic rounding, from its position, which a state dict keeps."""
        placed = [(param, group["seed"]) for group in self.param_groups for param in group["params"]]
        return {param: tensor_seed(seed, position) for position, (param, seed) in enumerate(placed)}

    def _init_state(self, param: torch.Tensor, group: dict[str, Any], hyper: Hyper) -> None:
        for name, spec in state_layout(tuple(param.shape), hyper.band, group["state_dtype"]).items():
            self.state[param][name] = torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device=param.device)
