"""`sonew-perf train`: does it train better?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from sonew_autotune.settings import LARGEST_SEED
from sonew_perf.cli.options import Device, Json, Store, among, exit_codes
from sonew_perf.cli.training import report_training, run_training
from sonew_perf.suite.keeping import Place
from sonew_perf.training.asked import Asked
from sonew_perf.training.methods import METHODS, PRECISIONS
from sonew_perf.training.schedule import RULES
from sonew_perf.training.settings import RANGES
from sonew_perf.training.tasks.table import TASKS

DEFAULT_METHODS: Final = ["sonew", "adam"]
FRAMEWORKS: Final = ("torch", "jax")
DATA_HELP: Final = (
    "Folder with MNIST's train-images-idx3-ubyte, gzipped or not (default: SONEW_DATA); of the text task a text file or a folder of them "
    "(default: the Python documentation that comes with Python)."
)
SEED_HELP: Final = "Of weights and order of the examples; repeatable."


def train(
    *,
    task: Annotated[str, typer.Option(help=f"{' or '.join(TASKS)}.", callback=among(list(TASKS)))] = "autoencoder",
    data: Annotated[Path | None, typer.Option(help=DATA_HELP)] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch MNIST into the user's cache, checked by its checksum.")] = False,
    method: Annotated[list[str], typer.Option(help=f"{', '.join(METHODS)}; repeatable.", callback=among(list(METHODS)))] = DEFAULT_METHODS,
    band: Annotated[list[int], typer.Option(min=0, help="Bands of SONew; repeatable.")] = [1],  # noqa: B006  # typer copies it
    precision: Annotated[str, typer.Option(help=f"{', '.join(PRECISIONS)}.", callback=among(list(PRECISIONS)))] = "fp32",
    framework: Annotated[str, typer.Option(help="torch or jax.", callback=among(FRAMEWORKS))] = "torch",
    epochs: Annotated[float | None, typer.Option(min=0, help="Train this long; default: the task's whole schedule.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Train this many steps instead.")] = None,
    schedule_epochs: Annotated[
        float | None, typer.Option(min=0, help="How long the learning-rate rule is; default: the task's, 100 epochs of the autoencoder.")
    ] = None,
    lr_rule: Annotated[str | None, typer.Option(help=f"{', '.join(RULES)}; default: the task's.", callback=among(list(RULES)))] = None,
    seed: Annotated[list[int], typer.Option(min=0, max=LARGEST_SEED - 1, help=SEED_HELP)] = [0],  # noqa: B006  # as above
    batch: Annotated[int | None, typer.Option(min=1, help="Examples per step; default: the task's.")] = None,
    lr: Annotated[list[float] | None, typer.Option(min=0, help="Peak learning rate; repeatable: a grid. Default: the reference's.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of every method that takes it, as eps=1e-6 or chain=row; repeatable.")
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(min=1, help="Search this many settings per method with the first seed, then train the best with every seed."),
    ] = None,
    ranges: Annotated[str, typer.Option(help=f"Where to search: {' or '.join(RANGES)}.", callback=among(list(RANGES)))] = "paper",
    counters: Annotated[bool, typer.Option("--counters", help="Count SONew's columns that fall back, by layer.")] = False,
    device: Device = "auto",
    store: Store = None,
    output: Annotated[
        Path | None, typer.Option(help="Record file, instead of the store: grows with every run, and what it holds is reused.")
    ] = None,
    label: Annotated[str, typer.Option(help="A name for the record.")] = "",
    as_json: Json = False,
    report: Annotated[
        bool, typer.Option("--report", help="Train nothing: print what is known, of the store and the committed records, or of --record.")
    ] = False,
    record: Annotated[list[Path] | None, typer.Option(help="With --report: a record file to read instead; repeatable.")] = None,
) -> None:
    """Train the paper's autoencoder, or another real task, with SONew and its peers: loss against steps and seconds.

    Without more it uses the known good settings of each method. Every finished run is kept at once; the same command goes on from there.
    Steps and seconds that each method needs to reach Adam's best loss are printed where Adam, or else AdamW, is among the methods.

      sonew-perf train --data mnist --epochs 5          band 1 and Adam: minutes
      sonew-perf train --data mnist --band 1 --band 4   in full, 100 epochs each
      sonew-perf train --data mnist --method adam --method soap --method sonew
      sonew-perf train --task text --search 8 --ranges narrow     search, train
      sonew-perf train --report            tables of what is kept, no training
    """
    with exit_codes():
        place = Place(output=output, store=store)
        if record and not report:
            msg = "--record is read by --report alone: pass both, or neither"
            raise typer.BadParameter(msg)
        if report and output is not None:
            msg = f"--output is not allowed with --report, which writes nothing. To read that record pass --record {output}"
            raise typer.BadParameter(msg)
        if report:
            report_training(record or (), place, as_json=as_json)
            return
        asked = Asked(
            task=task,
            methods=tuple(dict.fromkeys(method)),
            bands=tuple(dict.fromkeys(band)),
            precision=precision,
            framework=framework,
            epochs=epochs,
            steps=steps,
            schedule_epochs=schedule_epochs,
            lr_rule=lr_rule,
            seeds=tuple(dict.fromkeys(seed)),
            batch=batch,
            rates=tuple(sorted(set(lr or ()))),
            given=tuple(setting or ()),
            search=search,
            ranges=ranges,
            counters=counters,
        )
        run_training(asked, data, download=download, device=device, place=place, label=label, as_json=as_json)
