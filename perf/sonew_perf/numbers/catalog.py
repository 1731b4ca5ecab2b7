"""Every block and number of the READMEs that comes from a record: which records, and what writes it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from sonew_perf.jax.request import ADAMW
from sonew_perf.numbers import comparisons, steps, trained, training
from sonew_perf.numbers.record import Record
from sonew_perf.numbers.source import Source

STEP: Final = "2026-11-22-epyc2-step.json"
STEP_AUTOENCODER: Final = "2026-11-22-epyc2-autoencoder-step.json"
AVX512_TWO_BANDS: Final = "2026-11-23-epyc-avx512-step.json"
AVX512_FIVE_BANDS: Final = "2026-11-23-epyc-avx512-five-bands-step.json"
JAX: Final = "2026-11-27-epyc2-jax.json"
JAX_AUTOENCODER: Final = "2026-11-27-epyc2-jax-autoencoder.json"
HOST: Final = "2026-11-27-epyc2-host.json"
HOST_LLAMA: Final = "2026-11-27-epyc2-host-llama-1b.json"
TRAINING: Final = "2026-11-22-epyc2-training.json"
BF16: Final = "2026-11-23-epyc-avx512-training-bf16-state.json"
BF16_GAMMA_0: Final = "2026-11-23-epyc-avx512-training-bf16-state-gamma-0.json"
EQUALS: Final = "compares/2026-11-28-epyc-equals.json"
PLANTED: Final = "compares/2026-11-28-epyc-planted.json"


def _speed(step: Record, two: Record, five: Record, jax: Record) -> str:
    """The few times that the first page shows, good and bad ones."""
    shown = ((step, "SONew band 1"), (step, "SONew band 4"), (two, "SONew band 1, untuned"), (five, "SONew band 1, untuned"))
    return steps.summary(shown, (jax, "SONew band 1, XLA"), baseline=ADAMW)


RUN: Final = "sonew-perf run"
AVX512_RUN: Final = f"{RUN} --tuning off --rounds {{rounds}} --no-reference --band 1"
BF16_RUN: Final = (
    "OMP_NUM_THREADS=1 sonew-perf train --method sonew --method sonew-bf16-state --band 1 --lr 1.2e-3 --lr 3.6e-3 --lr 1.08e-2 --lr 3.24e-2"
)

SOURCES: Final[Mapping[str, Source]] = {
    "speed": Source((STEP, AVX512_TWO_BANDS, AVX512_FIVE_BANDS, JAX), _speed),
    "step": Source((STEP,), partial(steps.step, command=f"{RUN} --tuning on --tuning off --rounds {{rounds}}")),
    "step-autoencoder": Source(
        (STEP_AUTOENCODER,), partial(steps.step, command=f"{RUN} --model mnist-autoencoder --rounds {{rounds}} --no-reference")
    ),
    "step-two-runs": Source(
        (AVX512_TWO_BANDS, AVX512_FIVE_BANDS),
        partial(steps.two_runs, commands=(f"{AVX512_RUN} --band 4", f"{AVX512_RUN} --band 2 --band 4 --band 8 --band 16")),
    ),
    "cpu-target": Source((STEP, STEP_AUTOENCODER, AVX512_TWO_BANDS, AVX512_FIVE_BANDS), steps.cpu_target),
    "jax": Source((JAX, JAX_AUTOENCODER), partial(steps.jitted, baseline=ADAMW, command="sonew-perf jax")),
    "host": Source((HOST, HOST_LLAMA), partial(steps.host, command="sonew-perf host")),
    "trust": Source((EQUALS, PLANTED), comparisons.trust),
    "training": Source((TRAINING,), training.training),
    "bf16": Source((BF16, TRAINING), partial(training.bfloat16, command=BF16_RUN)),
    "bf16-gamma-0": Source((BF16_GAMMA_0,), training.gamma_0),
    **trained.SOURCES,
}
