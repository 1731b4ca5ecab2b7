"""SONew as a `torch.optim.Optimizer`.

    from sonew.torch import SONew
    optimizer = SONew(model.parameters(), lr=1e-3)

The mathematics stands in `sonew.reference`, the state in `sonew.layout`; this file only keeps books.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from sonew.config import STATE_DTYPES, Chain, GraftName, Hyper, Plan
from sonew.dispatch import Tuning, check_request, step
from sonew.errors import InvalidConfigError
from sonew.layout import state_layout
from sonew.torch_groups import GroupPlan, LaunchGroup, check_grad, check_param, dtype_name, plan_group

__all__ = ["SONew"]


def _hyper(group: dict[str, Any]) -> Hyper:
    betas = group["betas"]
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        msg = f"betas={betas!r} is not allowed: it must be a pair of numbers in [0, 1). Pass for example betas=(0.9, 0.99)."
        raise InvalidConfigError(msg)
    if isinstance(group["lr"], torch.Tensor):
        msg = "lr is a tensor, which is not supported yet: pass a float (a scheduler may change it between steps)."
        raise InvalidConfigError(msg)
    names = ("lr", "eps", "weight_decay", "band", "eps_rel", "gamma", "graft", "chain")
    return Hyper(beta1=betas[0], beta2=betas[1], **{name: group[name] for name in names})


def _check_group(group: dict[str, Any]) -> None:
    """Refuse a group's settings or parameters; `state_dtype` becomes a name, `betas` a tuple."""
    _hyper(group)
    group["betas"] = tuple(group["betas"])  # a list could be changed in place, unseen
    check_request(group["backend"], group["tuning"])
    group["state_dtype"] = dtype_name(group["state_dtype"])
    if group["state_dtype"] not in STATE_DTYPES:
        msg = f"state_dtype={group['state_dtype']!r} is not one of {list(STATE_DTYPES)}. Use torch.float32."
        raise InvalidConfigError(msg)
    for param in group["params"]:
        check_param(param)


class SONew(torch.optim.Optimizer):
    """Sparsified Online Newton: Adam's price in memory and time, the inverse of a band of the second moments as preconditioner.

    Args:
        params: parameters or parameter groups; every keyword below may be set per group.
        lr: step size, >= 0.
        betas: decays of momentum and statistics, in [0, 1).
        eps: absolute damping of the statistics' diagonal, >= 0.
        weight_decay: decoupled decay, scaled by lr, >= 0.
        band: off-diagonals kept, >= 0; 1 is tridiagonal, the paper's choice.
        eps_rel: relative damping of the diagonal, >= 0.
        gamma: a pivot at or below gamma times its diagonal entry drops the column's couplings, >= 0.
        graft: whose norm a tensor's update takes: "adam", "adam_uncorrected", "rmsprop", "sgd", or "none".
        chain: "tensor" (a tensor's elements in row-major order form one chain), "row" (each last axis) or a length.
        state_dtype: torch.float32, or torch.float64 for reference work.
        backend: "auto", "triton" (GPU), "cpu" (compiled) or "reference"; an explicit one never falls back.
        tuning: "on": configurations tuned on this machine, then shipped ones; "pinned": shipped ones only; "off": defaults.

    State per parameter of shape S (see `sonew.layout`): `momentum` S, `stats` (band + 1, *S), `count` int32 scalar.
    It is kept in `state_dtype` whatever the parameter's type: (band + 2) numbers per element.

    Raises:
        InvalidConfigError: a setting outside its range (a `ValueError`).
        UnsupportedProblemError: complex or sparse parameters or gradients (a `NotImplementedError`).
        BackendUnavailableError: an explicit backend that cannot run here, raised by the first step (a `RuntimeError`).

    Source: SONew, NeurIPS 2023, arXiv 2311.10085.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        band: int = 1,
        eps_rel: float = 0.0,
        gamma: float = 0.0,
        graft: GraftName = "adam",
        chain: Chain = "tensor",
        state_dtype: torch.dtype | str = torch.float32,
        backend: str = "auto",
        tuning: Tuning = "on",
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
            "backend": backend,
            "tuning": tuning,
        }
        self._plans: dict[int, GroupPlan] = {}
        self._settings: dict[int, tuple[tuple[Any, ...], Hyper]] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with settings of its own where given."""
        super().add_param_group(param_group)
        try:
            _check_group(self.param_groups[-1])
        except Exception:
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle or a copy; plans are made anew."""
        self._plans, self._settings = {}, {}
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy holds: settings and state, no plans."""
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict; the state keeps the type it was saved in, also beside bfloat16 parameters.

        How it is stepped is this optimizer's own business: `backend` and `tuning` stay as they are here.
        """
        own = [{name: group[name] for name in ("backend", "tuning")} for group in self.param_groups]
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
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index, group in enumerate(self.param_groups):
            hyper = self._group_hyper(index, group)
            for launch in self._ready_launch_groups(index, group, hyper):
                launch.stepper.set_hyper(hyper)
                launch.stepper.bind([leaf.param.grad for leaf in launch.leaves])
                step(launch.stepper)
                # compiled backends write through addresses: tell autograd, which otherwise trusts graphs that saved the old values
                torch.autograd.graph.increment_version([leaf.param for leaf in launch.leaves if leaf.param.grad is not None])
        return loss

    def plans(self) -> list[Plan]:
        """The plans in use, one per launch group: backend, configuration, and where it comes from. Empty before the first step."""
        groups = range(len(self.param_groups))
        return [launch.plan for index, known in self._plans.items() if index in groups for launch in known.launches]

    def _group_hyper(self, index: int, group: dict[str, Any]) -> Hyper:
        """The group's settings, validated again only when one of them changed (schedulers write into the group)."""
        current = tuple(value for name, value in group.items() if name != "params")
        known = self._settings.get(index)
        if known is None or known[0] != current:
            known = self._settings[index] = (current, _hyper(group))
        return known[1]

    def _ready_launch_groups(self, index: int, group: dict[str, Any], hyper: Hyper) -> list[LaunchGroup]:
        """The group's launch groups, planned anew when a tensor joined or changed, or a setting that the plan rests on."""
        names = ("band", "chain", "state_dtype", "backend", "tuning")
        plan_key = (torch.get_num_threads(), *(group[name] for name in names))  # tuned entries hold for a number of threads
        known = self._plans.get(index)
        stale = known is None or not known.covers(plan_key, group["params"])
        for param in group["params"]:
            if param.grad is not None and not self.state.get(param):
                check_grad(param)
                self._init_state(param, group, hyper)
                stale = True
        if known is None or stale or any(launch.is_stale(self.state) for launch in known.launches):
            known = self._plans[index] = GroupPlan(plan_key, tuple(group["params"]), plan_group(self.state, group, hyper))
        return known.launches

    def _init_state(self, param: torch.Tensor, group: dict[str, Any], hyper: Hyper) -> None:
        for name, spec in state_layout(tuple(param.shape), hyper.band, group["state_dtype"]).items():
            self.state[param][name] = torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device=param.device)
