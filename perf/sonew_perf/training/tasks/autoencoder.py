"""The paper's benchmark, the MNIST autoencoder (SONew, section 5): its tensors are `problems.MODELS`', its data the training images.

Weights are drawn in numpy: torch and JAX start from the same ones.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

import numpy as np

from sonew_autotune.problems import MODELS
from sonew_perf.errors import DataError
from sonew_perf.training.tasks.data import Data
from sonew_perf.training.tasks.idx import ImageSet, find_train_images, read_images

SHAPES: Final = MODELS["mnist-autoencoder"]  # weight (out, in), bias (out,), layer by layer
PIXELS: Final = SHAPES[0][1]
CODE_WIDTH: Final = min(outputs for outputs, *_ in SHAPES)
NO_DATA: Final = (
    "no images: neither --data nor SONEW_DATA is set. Name the folder that holds MNIST's train-images-idx3-ubyte(.gz), or pass --download."
)


def data_of(images: ImageSet) -> Data:
    """The images as a task's data.

    Raises:
        DataError: they have another number of pixels than the model.
    """
    count, pixels = images.pixels.shape
    if pixels != PIXELS:
        msg = f"the images have {pixels} pixels, the autoencoder takes {PIXELS} (28 x 28). Pass a folder with such images as --data."
        raise DataError(msg)
    return Data(name="MNIST training images", sha256=images.sha256, values=images.pixels, examples=count)


def load(folder: Path | None) -> Data:
    """The training images in a folder; None: in that of SONEW_DATA.

    Raises:
        DataError: no folder, no images in it, or a broken file.
    """
    named = folder or os.environ.get("SONEW_DATA")
    if not named:
        raise DataError(NO_DATA)
    return data_of(read_images(find_train_images(Path(named))))


def weights(seed: int) -> list[np.ndarray]:
    """Glorot-uniform weights (out, in) and zero biases (out,) of each layer, float32, of the seed alone."""
    generator = np.random.default_rng(seed)
    drawn = []
    for outputs, inputs in SHAPES[::2]:
        limit = math.sqrt(6 / (inputs + outputs))
        drawn += [generator.uniform(-limit, limit, (outputs, inputs)).astype(np.float32), np.zeros(outputs, np.float32)]
    return drawn
