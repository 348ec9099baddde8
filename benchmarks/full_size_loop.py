"""The training loop itself at full size: its feed of words and pixels, its log, its steps.

`full_size_all` times a step on one batch that lies on the device. Here the whole of `training.loop`
runs as it does for a user, on synthetic cubes and a store of random texts of the right widths.
"""

from __future__ import annotations

import csv
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from full_size_models import Bench
from loader import make_data

from satjepa.training.loop import train

TEXTS = 600  # different captions


class RandomLatents:
    """Stands for a `LatentStore`: the same latent for every patch."""

    def __init__(self, channels: int, side: int) -> None:
        self.latent = torch.randn(channels, side, side)

    def __getitem__(self, key: tuple) -> torch.Tensor:
        return self.latent


def make_dataset(bench: Bench, name: str) -> Any:
    """A `PairDataset` with words as long as the model's, and latents."""
    params = bench.params(name)
    tokens = max(params.captions.lengths or [params.captions.max_length])
    size = Namespace(patch=params.data.patch, tokens=tokens, width=bench.text, texts=TEXTS)
    folder = tempfile.TemporaryDirectory()
    data = make_data(Path(folder.name), size, bench.pooled, params.data.history)
    data.folder = folder  # lives as long as the data
    side = bench.backbone.latent_size(params.data.patch)
    data.latents = RandomLatents(bench.backbone.latent_channels, side).__getitem__
    return data


def loop_pace(bench: Bench, name: str, size: int, workers: int, steps: int) -> float:
    """Seconds of a step in the second half of a run of `train`, at a batch of `size`."""
    lines = 4
    settings = {
        "train.batch": size, "train.workers": workers, "train.steps": steps,
        "train.log_every": steps // lines, "train.checkpoint_every": steps + 1,
        "train.jepa_share": 0.0,
    }  # fmt: skip
    params = bench.params(name, settings)
    data = make_dataset(bench, name)
    with tempfile.TemporaryDirectory() as folder:
        train(bench.model(name), data, params, folder, "no", progress=False, split="none")
        with open(Path(folder) / "speed.csv", newline="") as file:
            seconds = [float(row[1]) for row in csv.reader(file)]
    half = lines // 2
    return (seconds[-1] - seconds[half - 1]) / (steps // lines * half)
