"""The optimizer: a `torch.optim.Optimizer` that steps launch groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from sonew.config import Chain, GraftName, Plan
from sonew.dispatch import Tuning
from sonew.errors import CaptureError
from sonew.layout import VERSION
from sonew.torch import reports
from sonew.torch.adamw import groups_from_adamw, import_state, to_adamw
from sonew.torch.capture import Captures, check_capturable, check_launch, is_capturing
from sonew.torch.compiled import register, trace_step
from sonew.torch.groups import LaunchGroup
from sonew.torch.launches import Launches, make_states
from sonew.torch.planning import dtype_name
from sonew.torch.settings import built_in, check_group, fill_gamma
from sonew.torch.signals import Signals, Skips, check_total_norm, gather_signals
from sonew.torch.state import KEPT, loading

__all__ = ["SONew"]


class SONew(torch.optim.Optimizer):
    """Sparsified Online Newton: Adam's price in memory and time, the inverse of a band of the second moments as preconditioner.

    Args:
        params: parameters or parameter groups; every keyword below may be set per group.
        lr: step size, >= 0; coming from AdamW, begin with its best rate times 1.5 for band 1, times 4 for band 4. A float, or a floating
            tensor of one element, which is changed in place. float32 on the parameters' device, it is read there by the GPU's kernels; any
            other is read by the host in every step.
        betas: decays of momentum and statistics, in [0, 1).
        eps: absolute damping of the statistics' diagonal, >= 0.
        weight_decay: decay of the parameters, >= 0.
        band: off-diagonals kept, >= 0; 1 is tridiagonal, the paper's choice.
        eps_rel: relative damping of the diagonal, >= 0.
        gamma: a pivot at or below gamma times its diagonal entry drops the column's couplings, >= 0. None: 0, or with bfloat16 state
            `sonew.config.default_gamma` of the beta2 given here, below which a pivot is rounding.
        graft: whose norm a tensor's update takes: "adam", "adam_uncorrected", "rmsprop", "sgd", or "none".
        chain: "tensor" (a tensor's elements in row-major order form one chain), "row" (each last axis) or a length.
        decoupled_weight_decay: True: the decay is scaled by lr and joins the step, as in AdamW; False: an L2 penalty joins the gradient
            (a copy of the gradients per step).
        maximize: climb instead of descend.
        foreach, fused, differentiable: torch's names for how a step is made. One launch serves the whole group, so foreach may be None or
            False; a step is never differentiable. fused=False changes no launch: it tells `torch.amp.GradScaler` to unscale and to wait
            for its verdict, as it does for torch's optimizers that are not fused, where a trainer refuses to clip otherwise.
        capturable: make every step ready to be followed by a capture in a CUDA graph.
        skip_nonfinite: leave everything as it is in a step where a gradient of this group is NaN or infinite, decided on the device: costs
            one more read of the gradients. `step(total_norm=...)` and a `GradScaler`'s found_inf do the same for free. Skips are counted
            (`read_counters`); processes that share sharded tensors decide together.
        counters: count on the device the columns that fall back (`read_counters`).
        state_dtype: torch.float32; torch.bfloat16 halves the state's memory and traffic, its averages are rounded stochastically
            (`sonew.rounding`); torch.float64 is for reference work.
        direction_dtype: torch.float32, or torch.bfloat16 for a smaller scratch between the two passes of a step.
        stochastic_rounding: write bfloat16 parameters rounded stochastically, so that updates below their last digit are not lost.
        seed: of all stochastic rounding, in [0, 2^64); equal seeds give equal bits.
        backend: "auto", "triton" (GPU), "cpu" (compiled) or "reference"; an explicit one never falls back.
        tuning: "on": configurations tuned on this machine, then shipped ones; "pinned": shipped ones only; "off": defaults.

    CUDA graphs: with `capturable=True` a step of the "triton" backend may be captured, by itself or with forward and backward
    (`zero_grad(set_to_none=True)` before the capture). Each capture follows an eager step with the same tensors and settings, and
    what cannot be right is refused before anything is launched. Replays read a tensor `lr` where it lies, so schedulers may fill
    it between them; a float `lr` and the other numbers follow `push_settings`. Eager steps in between disturb no graph. What
    graphs read stays allocated as long as the optimizer: keep it while they are replayed. Copies and pickles hold no captures.

    State per parameter of shape S (see `sonew.layout`): `momentum` S, `stats` `(band + 1, *S)`, `count` int32 scalar.
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
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, torch.Tensor]],
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
        decoupled_weight_decay: bool = True,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
        capturable: bool = False,
        skip_nonfinite: bool = False,
        counters: bool = False,
        state_dtype: torch.dtype | str = torch.float32,
        direction_dtype: torch.dtype | str = torch.float32,
        stochastic_rounding: bool = False,
        seed: int = 0,
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
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "differentiable": differentiable,
            "capturable": capturable,
            "skip_nonfinite": skip_nonfinite,
            "counters": counters,
            "state_dtype": dtype_name(state_dtype),
            "direction_dtype": dtype_name(direction_dtype),
            "stochastic_rounding": stochastic_rounding,
            "seed": seed,
            "backend": backend,
            "tuning": tuning,
            "layout_version": VERSION,
        }
        self._forget()
        super().__init__(params, defaults)

    @classmethod
    def from_adamw(cls, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any] | None = None) -> SONew:
        """Take over from a `torch.optim.AdamW` or `Adam` in mid-run: the same groups, averages and counts (`sonew.torch.adamw`).

        lr, betas, weight decay, maximize and capturable go on as they are; eps does not, since it damps another quantity. Products of
        neighbours start at zero and grow in.

        Args:
            optimizer: its parameters are stepped by this one from now on; it is left as it is.
            settings: arguments of this class by name, for all groups: {"band": 4, "lr": 3e-3}.

        Raises:
            InvalidConfigError: another optimizer, or an unknown setting.
        """
        made = cls(groups_from_adamw(optimizer, settings or {}, cls))
        import_state(made, optimizer)
        return made

    def to_adamw(self, *, eps: float = 1e-8) -> torch.optim.Adam:
        """Hand over to a `torch.optim.AdamW` with the same groups, averages and counts; `Adam` where a group's decay is coupled."""
        return to_adamw(self, eps=eps)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether torch.amp.GradScaler hands its scale and found_inf over instead of unscaling itself and waiting."""
        return all(group["fused"] is not False for group in self.param_groups)

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
        self._forget()
        super().__setstate__(state)
        self.defaults = {**built_in(type(self)), **self.defaults}  # what was pickled before an option was added lacks it
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            fill_gamma(group)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy holds: settings and state, no plans."""
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict; the state keeps the type it was saved in, also beside bfloat16 parameters.

        Settings come from the state dict, as with torch's optimizers, but for how this optimizer steps: `band`, `backend`, `tuning`,
        `capturable`, `skip_nonfinite` and `counters` stay as they are here. A state of another band is fitted: rows of `stats` beyond
        the band are dropped, rows that are missing start at zero, so that new couplings grow in as the old averages fade.

        Raises:
            InvalidConfigError: a state of a later layout, or one that is not what its tensor needs (raised by the next step).
            SonewError: this torch loads otherwise than sonew expects.
            ValueError: groups of other sizes, in torch's words.
        """
        own = [{name: group[name] for name in KEPT} for group in self.param_groups]
        with loading(self, own):
            super().load_state_dict(state_dict)
        self._launches.forget()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None, *, total_norm: torch.Tensor | None = None) -> float | None:  # type: ignore[override]  # torch types it by overloads
        """Take one step.

        Args:
            closure: recomputes the loss and its gradients.
            total_norm: the gradients' norm, as `torch.nn.utils.clip_grad_norm_` returns it: the step is skipped where it is not finite,
                without a wait and without reading the gradients again.

        Returns:
            The closure's loss, or None.
        """
        if total_norm is not None:
            check_total_norm(total_norm)
        compiling = torch.compiler.is_compiling()
        if not compiling and is_capturing():
            check_capturable(self.param_groups)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        told = total_norm, getattr(self, "grad_scale", None), getattr(self, "found_inf", None)  # torch.amp.GradScaler sets the last two
        if compiling:
            trace_step(self, *told)
        else:
            self._take_step(*told)
        return loss

    def _take_step(self, total_norm: torch.Tensor | None, grad_scale: torch.Tensor | None, found_inf: torch.Tensor | None) -> None:
        """One step with the gradients that the parameters hold; compiled graphs call it when they run."""
        capturing = is_capturing()
        self._launches.drop_beyond(self.param_groups)
        ready = [
            (index, group, settings, launch)
            for index, group in enumerate(self.param_groups)
            for settings in [self._launches.settings(index, group)]
            for launch in self._launches.ready(index, self.param_groups, self.state, capturing=capturing)
        ]
        for _, _, settings, launch in ready:  # nothing is launched before all are ready
            if capturing:
                check_launch(launch, settings)
            else:
                settings.bring_to(launch)
        signals = self._signals([(group, launch) for _, group, _, launch in ready], total_norm, grad_scale, found_inf)
        for index, group, settings, launch in ready:
            if capturing:
                self._captures.step(index, launch, settings, signals)
            else:
                launch.step(settings.hyper, signals, capturable=group["capturable"])
            # compiled backends write through addresses: tell autograd, which otherwise trusts graphs that saved the old values
            torch.autograd.graph.increment_version(launch.written())

    @torch.no_grad()
    def prepare(self) -> list[Plan]:
        """Make everything that the first step would make, for every parameter that requires a gradient: state, plans, compiled code.

        Parameters, counts and averages keep their values. Call it before timing a first step, or before the eager step that precedes a
        capture; with sharded parameters in every process. A parameter that never gets a gradient keeps a state of zeros.

        Returns:
            The plans, one per launch group.
        """
        for index, group in enumerate(self.param_groups):
            new = [param for param in group["params"] if param.requires_grad and not self.state.get(param)]
            make_states(new, group, self.state)
            for launch in self._launches.ready(index, self.param_groups, self.state, capturing=False):
                launch.warm_up(self._launches.settings(index, group).hyper)
        return self.plans()

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
            settings = self._launches.settings(index, group)
            reached += [(settings, launch) for launch in (*self._launches.known(index), *self._captures.launches(index, settings))]
        for settings, launch in reached:
            settings.bring_to(launch)

    def plans(self) -> list[Plan]:
        """The plans in use, one per launch group: backend, configuration, and where it comes from. Empty before the first step."""
        return [launch.plan for launch in self._launches.all()]

    def explain(self) -> str:
        """One line per launch group: its tensors, backend, configuration, and where that comes from."""
        return reports.explain([(str(group.get("name", "")), self._launches.known(i)) for i, group in enumerate(self.param_groups)])

    def memory_report(self) -> reports.MemoryReport:
        """Bytes that this optimizer holds on the devices of this process."""
        return reports.memory_report(list(self.state.values()), self._launches.all())

    def read_counters(self) -> reports.Counters:
        """Read the device's counters: steps skipped, and with `counters=True` per parameter the columns that fell back and |u|.

        The host waits for the devices. The counters start with the optimizer and are in no checkpoint.
        """
        return reports.read_counters(self.param_groups, self.state, self._launches.all(), self._launches.counts, self._skips.total())

    def _forget(self) -> None:
        """Plan anew; captures and counts stay, so that a load leaves graphs the memory that they read."""
        self._launches: Launches = self.__dict__.get("_launches") or Launches()
        self._launches.forget()
        self._captures: Captures = self.__dict__.get("_captures") or Captures()
        self._skips: Skips = self.__dict__.get("_skips") or Skips()
        if "_handle" not in self.__dict__:
            self._handle = register(self)

    def _signals(
        self,
        ready: Sequence[tuple[dict[str, Any], LaunchGroup]],
        total_norm: torch.Tensor | None,
        grad_scale: torch.Tensor | None,
        found_inf: torch.Tensor | None,
    ) -> Signals:
        """What this step learns on the device; a skip is counted there."""
        guarded = [grad for group, launch in ready if group["skip_nonfinite"] for grad in launch.grads() if grad is not None]
        watched = any(group["skip_nonfinite"] for group in self.param_groups)
        if not watched and grad_scale is None and found_inf is None and total_norm is None:
            return Signals()
        groups = {launch.neighbours.group: None for _, launch in ready if launch.neighbours}
        device = ready[0][1].device if ready else torch.device("cpu")
        signals = gather_signals(grad_scale, found_inf, total_norm, guarded if watched else None, groups, device)
        self._skips.count(signals, capturing=is_capturing())
        return signals
