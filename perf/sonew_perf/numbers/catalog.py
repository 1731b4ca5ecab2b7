"""Every block and number of the READMEs that comes from a record: which records, and what writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from sonew_perf.jax.request import ADAMW
from sonew_perf.numbers import benchmarks, comparisons, race, steps, training
from sonew_perf.numbers.record import Record

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
FIVE_EPOCHS: Final = "2026-11-28-epyc-avx512-train-five-epochs.json"
FIVE_EPOCHS_JAX: Final = "2026-11-28-epyc-avx512-train-five-epochs-jax.json"
FULL: Final = "2026-11-28-epyc-avx512-train-full.json"
SEARCHED: Final = "2026-11-28-epyc-avx512-train-search.json"
AVERAGED_AFTER: Final = "2026-11-28-epyc-avx512-train-averaged-after.json"
WIDER_BANDS: Final = "2026-11-28-epyc-avx512-train-wider-bands.json"
PIVOT_FLOOR: Final = "2026-11-28-epyc-avx512-train-pivot-floor.json"
SLOW_COUPLINGS: Final = "2026-11-28-epyc-avx512-train-slow-couplings.json"
MUON_SOAP: Final = "2026-11-28-epyc-avx512-train-muon-soap.json"
TEXT: Final = "2026-11-28-epyc-avx512-train-text.json"
NARROW_STATE: Final = "2026-11-28-epyc-avx512-train-bf16-state.json"
PURE: Final = "2026-11-28-epyc-avx512-train-bf16.json"
EPS_TEXT: Final = "2026-11-28-epyc-avx512-train-eps-text.json"
EPS_AUTOENCODER: Final = "2026-11-28-epyc-avx512-train-eps-autoencoder.json"
EQUALS: Final = "compares/2026-11-28-epyc-equals.json"
PLANTED: Final = "compares/2026-11-28-epyc-planted.json"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a marked place's text comes from.

    Attributes:
        records: names of files in perf/baselines.
        write: makes the text of them, given in that order; a block's text ends with a line end.
    """

    records: tuple[str, ...]
    write: Callable[..., str]


def _speed(step: Record, two: Record, five: Record, jax: Record) -> str:
    """The few times that the first page shows, good and bad ones."""
    shown = ((step, "SONew band 1"), (step, "SONew band 4"), (two, "SONew band 1, untuned"), (five, "SONew band 1, untuned"))
    return steps.summary(shown, (jax, "SONew band 1, XLA"), baseline=ADAMW)


RUN: Final = "sonew-perf run"
AVX512_RUN: Final = f"{RUN} --tuning off --rounds {{rounds}} --no-reference --band 1"
BF16_RUN: Final = (
    "OMP_NUM_THREADS=1 sonew-perf train --method sonew --method sonew-bf16-state --band 1 --lr 1.2e-3 --lr 3.6e-3 --lr 1.08e-2 --lr 3.24e-2"
)

TRAIN: Final = "sonew-perf train --data mnist"
SEEDS: Final = "--seed 0 --seed 1 --seed 2"
SHORT: Final = f"--epochs 3 --schedule-epochs 3 --lr-rule steps --search 4 --ranges narrow {SEEDS}"
REFERENCE: Final = {
    "SONew band 1": (70.9, 0.04),
    "SONew band 4": (71.1, 0.05),
    "Adam": (126.0, 0.07),
}  # measured before, on another machine

SOURCES: Final[Mapping[str, Source]] = {
    "speed": Source((STEP, AVX512_TWO_BANDS, AVX512_FIVE_BANDS, JAX), _speed),
    "gain": Source((TRAINING,), training.gain),
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
    "train-five-epochs": Source(
        (FIVE_EPOCHS, FIVE_EPOCHS_JAX),
        partial(
            benchmarks.epoch,
            number=5,
            expected=REFERENCE,
            command=f"{TRAIN} --method sonew --method adam --band 1 --band 4 --epochs 5 {SEEDS}",
        ),
    ),
    "train-full": Source((FULL,), partial(race.race, command=f"{TRAIN} --method sonew --method adam --band 1 --band 4", steps=6000)),
    "train-summary": Source((FULL,), partial(race.race, steps=6000)),
    "train-search": Source(
        (SEARCHED, MUON_SOAP), partial(race.race, command=f"{TRAIN} --method adam --method sonew --band 1 --band 4 {SHORT}", steps=180)
    ),
    "train-ideas": Source(
        (SEARCHED, AVERAGED_AFTER, WIDER_BANDS, PIVOT_FLOOR, SLOW_COUPLINGS),
        partial(
            benchmarks.ideas,
            plain="SONew band 4",
            apart=("Adam", "SONew band 1"),
            command=f"{TRAIN} --method sonew --band 4 {SHORT} --set idea=NAME",
        ),
    ),
    "train-text": Source((TEXT,), partial(race.race, task="text", steps=408)),
    "train-narrow-state": Source((FIVE_EPOCHS, NARROW_STATE), partial(benchmarks.narrow_state)),
    "train-bf16": Source((PURE,), partial(benchmarks.pure)),
    "train-eps": Source((EPS_TEXT, EPS_AUTOENCODER), partial(benchmarks.settings, shown=("eps", "eps_rel"))),
}
