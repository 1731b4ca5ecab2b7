"""The blocks and numbers of the training benchmark: which records, with which commands, and what writes them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from sonew_perf.numbers import benchmarks, race
from sonew_perf.numbers.source import Source

DATE: Final = "2026-11-28-epyc-avx512-train"
FIVE_EPOCHS: Final = f"{DATE}-five-epochs.json"
FIVE_EPOCHS_JAX: Final = f"{DATE}-five-epochs-jax.json"
FULL: Final = f"{DATE}-full.json"
FULLY: Final = (FULL, f"{DATE}-full-muon.json", f"{DATE}-full-soap.json")
SEARCHED: Final = f"{DATE}-search.json"
IDEAS: Final = tuple(f"{DATE}-{name}.json" for name in ("averaged-after", "wider-bands", "pivot-floor"))
MUON_SOAP: Final = f"{DATE}-muon-soap.json"
TEXT: Final = f"{DATE}-text.json"
NARROW_STATE: Final = f"{DATE}-bf16-state.json"
NARROW_GAMMA: Final = f"{DATE}-bf16-gamma.json"
NARROW_BETA2: Final = f"{DATE}-bf16-beta2.json"
NARROW_DEFAULTS: Final = f"{DATE}-bf16-defaults.json"
NARROW_DEFAULTS_GAMMA: Final = f"{DATE}-bf16-defaults-gamma.json"
PURE: Final = f"{DATE}-bf16.json"
TEXT_ADAMW: Final = f"{DATE}-text-adamw.json"
TEXT_LAYERS: Final = f"{DATE}-text-layers.json"
EPS: Final = (f"{DATE}-eps-text.json", f"{DATE}-eps-autoencoder.json")
BETAS: Final = (f"{DATE}-betas-text.json", f"{DATE}-betas-autoencoder.json")
GRAFT: Final = (f"{DATE}-graft-text.json", f"{DATE}-graft-autoencoder.json")
OTHERS: Final = f"{DATE}-others.json"

RUN: Final = "sonew-perf train"
IMAGES: Final = f"{RUN} --data mnist"
THREE: Final = "--method sonew --method adam --band 1 --band 4"
TORCHS: Final = "--method adamw --method sgd --method rmsprop --method adagrad"
OURS: Final = "--method sonew --band 1 --band 4"
SEEDS: Final = "--seed 0 --seed 1 --seed 2"
SHORT: Final = f"--epochs 3 --schedule-epochs 3 --lr-rule steps --search 4 --ranges narrow {SEEDS}"
MOMENTS: Final = "--set beta1=0.9 --set beta2=0.99"
REFERENCE: Final = {"SONew band 1": (70.9, 0.04), "SONew band 4": (71.1, 0.05), "Adam": (126.0, 0.07)}
"""Mean training loss of epoch 5 with the reference settings, measured before this benchmark was written, and how far off it may be."""

SOURCES: Final[Mapping[str, Source]] = {
    "train-five-epochs": Source(
        (FIVE_EPOCHS, FIVE_EPOCHS_JAX),
        partial(benchmarks.epoch, number=5, expected=REFERENCE, command=f"{IMAGES} {THREE} --epochs 5 {SEEDS}"),
    ),
    "train-full": Source(FULLY, partial(race.race, command=f"{IMAGES} {THREE} --method muon --method soap", steps=6000)),
    "band-1-steps": Source((FULL,), partial(race.share, label="SONew band 1", of="steps", steps=6000)),
    "band-1-wall": Source((FULL,), partial(race.share, label="SONew band 1", of="wall", steps=6000)),
    "soap-wall": Source(FULLY, partial(race.share, label="SOAP", of="wall", steps=6000)),
    "muon-wall": Source(FULLY, partial(race.share, label="Muon", of="wall", steps=6000)),
    "train-summary": Source(FULLY, partial(race.race, steps=6000)),
    "train-search": Source((SEARCHED, OTHERS, MUON_SOAP), partial(race.race, command=f"{IMAGES} {THREE} {TORCHS} {SHORT}", steps=180)),
    "train-ideas": Source(
        (SEARCHED, *IDEAS),
        partial(
            benchmarks.ideas,
            plain="SONew band 4",
            apart=("Adam", "SONew band 1"),
            command=f"{IMAGES} --method sonew --band 4 {SHORT} --set idea=IDEA",
        ),
    ),
    "train-text": Source(
        (TEXT, TEXT_ADAMW),
        partial(
            race.race,
            task="text",
            command=f"{RUN} --task text --method adamw {OURS} --epochs 2 --schedule-epochs 2 --search 5 --ranges narrow {MOMENTS} "
            f"--set weight_decay=0.01 {SEEDS}",
        ),
    ),
    "train-narrow-state": Source(
        (FIVE_EPOCHS, NARROW_STATE, NARROW_GAMMA),
        partial(benchmarks.narrow_state, command=f"{IMAGES} {OURS} --precision bf16-state --epochs 5 {SEEDS} --counters --set gamma=GAMMA"),
    ),
    "train-narrow-defaults": Source(
        (NARROW_DEFAULTS, NARROW_DEFAULTS, NARROW_DEFAULTS_GAMMA),
        partial(
            benchmarks.narrow_state,
            command=f"{IMAGES} --method sonew --precision bf16-state --epochs 5 {MOMENTS} --set eps=1e-8 {SEEDS} --set gamma=GAMMA",
        ),
    ),
    "train-narrow-beta2": Source(
        (NARROW_BETA2, NARROW_BETA2),
        partial(benchmarks.narrow_state, command=f"{IMAGES} --method sonew --precision bf16-state --epochs 5 --set beta2=0.99 {SEEDS}"),
    ),
    "train-betas": Source(
        BETAS, partial(benchmarks.settings, shown=("beta1", "beta2"), command=f"{RUN} {OURS} --set beta1=BETA1 --set beta2=BETA2")
    ),
    "train-graft": Source(
        GRAFT,
        partial(benchmarks.settings, shown=("graft", "lr"), command=f"{RUN} --method sonew --lr LR --set graft=GRAFT"),
    ),
    "train-bf16": Source(
        (PURE,), partial(benchmarks.pure, command=f"{IMAGES} {OURS} --precision bf16 --steps 120 --seed 0 --seed 1 ... --seed 9")
    ),
    "train-eps": Source(
        EPS,
        partial(benchmarks.settings, shown=("eps", "eps_rel"), command=f"{RUN} {OURS} {MOMENTS} --set eps=EPS --set eps_rel=EPS_REL"),
    ),
    "train-layers": Source(
        (TEXT_LAYERS,),
        partial(
            benchmarks.settings,
            shown=("chain", "layers"),
            command=f"{RUN} --task text {OURS} --epochs 2 --schedule-epochs 2 --lr 8.559e-3 {MOMENTS} --set eps=5.266e-8 "
            "--set weight_decay=0.01 --set chain=CHAIN --set layers=LAYERS",
        ),
    ),
    "train-gamma": Source(
        (NARROW_GAMMA,),
        partial(
            benchmarks.settings,
            shown=("precision", "beta2", "gamma"),
            command=f"{IMAGES} --method sonew --band BAND --precision PRECISION --epochs 5 --set beta2=BETA2 --set gamma=GAMMA",
        ),
    ),
}
