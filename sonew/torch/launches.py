"""An optimizer's launch groups: made when its first gradients come, kept from step to step, made anew when something changed."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Final

import torch

from sonew.errors import CaptureError
from sonew.rounding import tensor_seed
from sonew.torch.groups import GroupPlan, LaunchGroup
from sonew.torch.planning import check_grad, plan_group
from sonew.torch.settings import Settings
from sonew.torch.state import fit_band, follow_device, fresh_state

PLANNED: Final = ("band", "chain", "state_dtype", "direction_dtype", "stochastic_rounding", "counters", "seed", "backend", "tuning")
Groups = Sequence[dict[str, Any]]
States = MutableMapping[torch.Tensor, dict[str, Any]]


class Launches:
    """Settings and plans by parameter group; `counts` holds what was counted under plans that were replaced (`groups.Tally`)."""

    def __init__(self) -> None:
        self.counts: dict[torch.Tensor, torch.Tensor] = {}
        self._plans: dict[int, GroupPlan] = {}
        self._settings: dict[int, Settings] = {}

    def forget(self) -> None:
        """Plan anew in the next step."""
        self._keep_counts(self.all())
        self._plans, self._settings = {}, {}

    def settings(self, index: int, group: dict[str, Any]) -> Settings:
        """The group's settings, validated again only when one of them changed (schedulers write into the group)."""
        settings = self._settings[index] = Settings.of(group, self._settings.get(index))
        return settings

    def known(self, index: int) -> list[LaunchGroup]:
        """The group's launch groups as they are; none before it was planned."""
        return self._plans[index].launches if index in self._plans else []

    def all(self) -> list[LaunchGroup]:
        """All launch groups."""
        return [launch for index in sorted(self._plans) for launch in self._plans[index].launches]

    def drop_beyond(self, groups: Groups) -> None:
        """Let go of plans and counts of parameter groups that are no longer there."""
        gone = [index for index in self._plans if index >= len(groups)]
        if gone:
            for index in gone:
                del self._plans[index]
                self._settings.pop(index, None)
            present = {param for group in groups for param in group["params"]}
            self.counts = {param: counts for param, counts in self.counts.items() if param in present}

    def ready(self, index: int, groups: Groups, states: States, *, capturing: bool) -> list[LaunchGroup]:
        """A group's launch groups, planned anew when a tensor joined or changed, or a setting that the plan rests on.

        Raises:
            CaptureError: a plan would have to be made while a step is captured.
        """
        group = groups[index]
        hyper = self.settings(index, group).hyper
        position = sum(len(other["params"]) for other in groups[:index])  # seeds follow it
        coupled = hyper.weight_decay != 0 and not hyper.decoupled_weight_decay  # gradients are read in another type then
        on_host = bool(group["params"]) and group["params"][0].device.type == "cpu"
        threads = torch.get_num_threads() if on_host else 0  # for which tuned entries of the host hold
        key = (threads, position, coupled, *(group[name] for name in PLANNED))
        known = self._plans.get(index)
        if known and known.covers(key, group["params"], states):
            return known.launches
        if capturing:
            msg = "tensors, gradients or settings are not those of the last eager step: take one eager step with them before the capture."
            raise CaptureError(msg)
        make_states([param for param in group["params"] if param.grad is not None and not states.get(param)], group, states)
        for param in group["params"]:
            if state := states.get(param):
                follow_device(param, state)
                fit_band(param, state, hyper.band)
        launches = plan_group(states, group, hyper, _seeds(groups))
        self._keep_counts(self.known(index))  # only now: where planning fails the old plan goes on counting
        self._plans[index] = GroupPlan(key, tuple(group["params"]), launches)
        return launches

    def _keep_counts(self, launches: Sequence[LaunchGroup]) -> None:
        """Note what launch groups counted that are about to be replaced."""
        for launch in launches:
            if launch.tally is not None:
                for member, counts in zip(launch.members, launch.tally.counts, strict=True):
                    self.counts[member.param] = self.counts[member.param] + counts if member.param in self.counts else counts


def make_states(params: Sequence[torch.Tensor], group: dict[str, Any], states: States) -> None:
    """State of tensors that have taken no step.

    Raises:
        UnsupportedProblemError: a sparse gradient.
    """
    for param in params:
        check_grad(param)
        states[param].update(fresh_state(param, group["band"], group["state_dtype"]))


def _seeds(groups: Groups) -> dict[torch.Tensor, int]:
    """Each parameter's seed of stochastic rounding, from its position, which a state dict keeps."""
    placed = [(param, group["seed"]) for group in groups for param in group["params"]]
    return {param: tensor_seed(seed, position) for position, (param, seed) in enumerate(placed)}
