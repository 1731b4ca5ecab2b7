"""A plain loop: mixed precision, gradient clipping, a scheduler, a bad batch, and a checkpoint from which training goes on bit for bit.

python -m sonew.examples.train
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import nn

from sonew.torch import SONew, param_groups

STEPS: Final = 60
BAD_STEP: Final = 20  # its batch holds an infinite value, as a broken sample would
PARTS: Final = ("model", "optimizer", "scheduler", "scaler")


@dataclass(frozen=True)
class Run:
    """Everything that a checkpoint holds."""

    model: nn.Module
    optimizer: SONew
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler

    @classmethod
    def start(cls, device: str) -> Run:
        """A fresh run, the same whenever it is called."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.LayerNorm(128), nn.Tanh(), nn.Linear(128, 8)).to(device)
        optimizer = SONew(param_groups(model, weight_decay=0.01), lr=3e-2, band=2, counters=True)
        optimizer.prepare()  # compiles here instead of in the first step
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
        return cls(model, optimizer, scheduler, torch.amp.GradScaler(device, init_scale=2.0**10))

    def save(self, path: Path, step: int) -> None:
        """Write a checkpoint."""
        torch.save({"step": step, **{name: getattr(self, name).state_dict() for name in PARTS}}, path)

    def load(self, path: Path) -> int:
        """Read a checkpoint; returns its step."""
        saved = torch.load(path, weights_only=True)  # tensors, numbers and strings: nothing of it is code
        for name in PARTS:
            getattr(self, name).load_state_dict(saved[name])
        step: int = saved["step"]
        return step

    def tensors(self) -> list[torch.Tensor]:
        """Parameters and optimizer state, in order."""
        params = list(self.model.parameters())
        return params + [value for param in params for _, value in sorted(self.optimizer.state[param].items())]


def batch(step: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (256, 64) and targets (256, 8) of one step."""
    inputs = torch.randn(256, 64, generator=torch.Generator().manual_seed(step))
    targets = inputs[:, :8].sin()
    if step == BAD_STEP:
        inputs[0, 0] = float("inf")
    return inputs.to(device), targets.to(device)


def train(run: Run, steps: Iterable[int], device: str) -> None:
    """The loop. Nothing in it waits for the device but the line that is printed."""
    dtype = torch.float16 if device == "cuda" else torch.bfloat16
    for step in steps:
        inputs, targets = batch(step, device)
        run.optimizer.zero_grad()
        with torch.autocast(device, dtype=dtype):
            outputs = run.model(inputs)
        loss = (outputs.float() - targets).square().mean()
        run.scaler.scale(loss).backward()  # bfloat16 does not need a scaler, but the loop stays the same
        run.scaler.unscale_(run.optimizer)  # for the clipping; without clipping leave it out, and the kernels unscale
        total_norm = nn.utils.clip_grad_norm_(run.model.parameters(), max_norm=1.0)
        run.scaler.step(run.optimizer, total_norm=total_norm)  # the device skips the step if the norm is not finite
        run.scaler.update()
        run.scheduler.step()
        if step % 10 == 9:
            lr = run.scheduler.get_last_lr()[0]
            print(f"step {step + 1:3}  loss {loss.item():.4f}  gradient norm {total_norm.item():.3f}  lr {lr:.1e}")  # noqa: T201  # for people


def main() -> None:
    """Train; train again with a stop in the middle; compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    device: str = parser.parse_args().device

    straight = Run.start(device)
    print(straight.optimizer.explain(), "\n\nwithout a stop:", sep="")  # noqa: T201  # for people
    train(straight, range(STEPS), device)
    told = straight.optimizer.read_counters(), straight.optimizer.memory_report()
    print(*told, f"stopped at step {STEPS // 2} and resumed:", sep="\n\n")  # noqa: T201  # for people
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.pt")
        first = Run.start(device)
        train(first, range(STEPS // 2), device)
        first.save(path, STEPS // 2)
        resumed = Run.start(device)
        train(resumed, range(resumed.load(path), STEPS), device)
    if not all(map(torch.equal, straight.tensors(), resumed.tensors())):
        sys.exit("the bits differ from those of the run without a stop")
    print("the same bits as without a stop")  # noqa: T201  # for people


if __name__ == "__main__":
    main()
