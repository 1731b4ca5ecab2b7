"""FSDP2: parameters and state sharded over the ranks, exact clipping, and a checkpoint that all ranks write and read.

torchrun --nproc-per-node 2 -m sonew.examples.fsdp2

The chains of SONew cross the borders of shards, so that any number of ranks takes the steps that one would take.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from sonew.torch import SONew, param_groups

STEPS: Final = 60
BATCH: Final = 256  # of all ranks together


@dataclass(frozen=True)
class Run:
    """Everything that a checkpoint holds."""

    model: nn.Module
    optimizer: SONew
    scheduler: torch.optim.lr_scheduler.LRScheduler

    @classmethod
    def start(cls, device: str) -> Run:
        """A fresh run, the same whenever it is called and on any number of ranks."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 127), nn.LayerNorm(127), nn.Tanh(), nn.Linear(127, 8)).to(device)  # 127 is odd: uneven shards
        mesh = init_device_mesh(device, (dist.get_world_size(),))
        for layer in (model[0], model[3], model):
            fully_shard(layer, mesh=mesh)
        optimizer = SONew(param_groups(model, weight_decay=0.01), lr=3e-2, band=2)
        optimizer.prepare()  # one process of a machine compiles, the others wait for it
        return cls(model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS))

    def state_dict(self) -> dict[str, Any]:
        """What is saved, shards as DTensors, by parameters' names."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "scheduler": self.scheduler.state_dict()}

    def save(self, folder: str) -> None:
        """Write a checkpoint; every rank writes its shards."""
        dcp.save(self.state_dict(), checkpoint_id=folder)  # type: ignore[attr-defined]  # exported, but not declared so

    def load(self, folder: str) -> None:
        """Read a checkpoint that any number of ranks wrote; every rank reads what its shards need."""
        state = self.state_dict()  # read in place
        dcp.load(state, checkpoint_id=folder)  # type: ignore[attr-defined]  # as save
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])

    def shards(self) -> list[torch.Tensor]:
        """What of the parameters and of the state lies on this rank, in order."""
        params = list(self.model.parameters())
        held = params + [value for param in params for _, value in sorted(self.optimizer.state[param].items())]
        return [value.to_local() if isinstance(value, dist.tensor.DTensor) else value for value in held]


def batch(step: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's part of a step's inputs (BATCH, 64) and targets (BATCH, 8)."""
    inputs = torch.randn(BATCH, 64, generator=torch.Generator().manual_seed(step))
    inputs = inputs.tensor_split(dist.get_world_size())[dist.get_rank()].to(device)
    return inputs, inputs[:, :8].sin()


def train(run: Run, steps: Iterable[int], device: str) -> None:
    """The loop."""
    for step in steps:
        inputs, targets = batch(step, device)
        run.optimizer.zero_grad()
        loss = (run.model(inputs) - targets).square().mean()
        loss.backward()
        total_norm = nn.utils.clip_grad_norm_(run.model.parameters(), max_norm=1.0)  # of all ranks, a DTensor
        run.optimizer.step(total_norm=total_norm)  # all ranks skip the step if it is not finite
        run.scheduler.step()
        if step % 10 == 9:
            mean = loss.detach() / dist.get_world_size()
            dist.all_reduce(mean)
            tell(f"step {step + 1:3}  loss {mean.item():.4f}  lr {run.scheduler.get_last_lr()[0]:.1e}")


def tell(text: str) -> None:
    """Print once, on the first rank."""
    if dist.get_rank() == 0:
        print(text, flush=True)  # noqa: T201  # for people


def main() -> None:
    """Train; train again with a stop in the middle; compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    device: str = parser.parse_args().device
    if "RANK" not in os.environ:
        sys.exit("start it with torchrun: torchrun --nproc-per-node 2 -m sonew.examples.fsdp2")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")

    straight = Run.start(device)
    tell(f"{straight.optimizer.explain()}\n\nwithout a stop:")
    train(straight, range(STEPS), device)
    tell(f"\n{straight.optimizer.memory_report()}\n\nstopped at step {STEPS // 2} and resumed:")
    with tempfile.TemporaryDirectory() as made:
        folder = [made]
        dist.broadcast_object_list(folder)  # all ranks use the first one's
        first = Run.start(device)
        train(first, range(STEPS // 2), device)
        first.save(folder[0])
        resumed = Run.start(device)
        resumed.load(folder[0])
        train(resumed, range(STEPS // 2, STEPS), device)
        dist.barrier()
    if not all(map(torch.equal, straight.shards(), resumed.shards())):
        sys.exit("the bits differ from those of the run without a stop")
    tell("the same bits as without a stop, on every rank")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
