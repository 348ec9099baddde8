"""The training loop itself at full size: its feed of words and pixels, its log, its steps.

`full_size_all` times a step on one batch that lies on the device. Here the whole of `training.loop`
runs as it does for a user, on synthetic cubes and a store of random texts of the right widths.
"""

from __future__ import annotations

import csv
import tempfile
from argparse import Namespace
from pathlib import Path

import torch
from full_size_models import Bench
from loader import make_data

from satjepa.config import Params
from satjepa.data.pairs import PairDataset
from satjepa.training.loop import train

TEXTS = 600  # different captions


def loop_pace(bench: Bench, name: str, size: int, workers: int, steps: int) -> float:
    """Seconds of a step in the second half of a run of `train`, at a batch of `size`."""
    lines = 4
    settings = {
        "train.batch": size, "train.workers": workers, "train.steps": steps,
        "train.log_every": steps // lines, "train.checkpoint_every": steps + 1,
        "train.jepa_share": 0.0,
    }  # fmt: skip
    params = bench.params(name, settings)
    with tempfile.TemporaryDirectory() as folder:
        data = make_dataset(bench, params, Path(folder) / "text")
        run = Path(folder) / "run"
        train(bench.model(name), data, params, run, "no", progress=False, split="none")
        with open(run / "speed.csv", newline="") as file:
            seconds = [float(row[1]) for row in csv.reader(file)]
    half = lines // 2
    return (seconds[-1] - seconds[half - 1]) / (steps // lines * half)


def make_dataset(bench: Bench, params: Params, folder: Path) -> PairDataset:
    """Pairs with words as long as the model's, kept in `folder`, and one latent for all."""
    tokens = max(params.captions.lengths or [params.captions.max_length])
    size = Namespace(patch=params.data.patch, tokens=tokens, width=bench.text, texts=TEXTS)
    data = make_data(folder, size, bench.pooled, params.data.history)
    side = bench.backbone.latent_size(params.data.patch)
    latent = torch.randn(bench.backbone.latent_channels, side, side)
    data.latents = lambda key: latent
    return data
