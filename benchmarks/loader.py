"""Samples a second of the training feed at full-size words, and of the plain path.

    python benchmarks/loader.py                          the demo's captions: at most 48 tokens
    python benchmarks/loader.py --tokens 256 --patch 128  as params.paper.yaml has it

Synthetic cubes of the demo's shape (64 bands of AlphaEarth, 2 earlier years) and a store of texts
of width 4096 lie in a temporary folder, which is read once before. "plain" is one sample after
another, its words padded in float32, then stacked. "to a GPU" is all but the transfer: the words
stay bfloat16 until they are there. Prints a Markdown table: the best of `--repeats` turns, all
paths by turns, and the samples for each second that a core worked, of all processes together, which
other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from satjepa.captions.store import TextStore
from satjepa.contracts import Captions
from satjepa.data.pairs import PairDataset, collate
from satjepa.training.feed import feed
from satjepa.training.state import batch_indices

CPU = torch.device("cpu")
GPU = torch.device("meta")  # takes tensors and keeps nothing of them
YEARS = 7
POOLED = 2048
WARM = 6  # batches


class RandomEncoders:
    """Texts of this benchmark are numbers; their embeddings are random, of `tokens` at most."""

    def __init__(self, tokens: int, width: int, pooled: int) -> None:
        self.tokens = tokens
        self.pooled = pooled
        self.states = torch.randn(tokens, width)

    def fingerprint(self) -> str:
        """The same for all."""
        return "random"

    def encode(self, texts: list[str], max_length: int, batch: int) -> list[tuple]:
        """Between half of `tokens` and all of them, as captions are."""
        lengths = [self.tokens - int(text or 0) % (self.tokens // 2) for text in texts]
        return [(self.states[:length], torch.randn(self.pooled)) for length in lengths]


def make_cube(region: str, size: int, rng: np.random.Generator) -> xr.Dataset:
    """A region of the demo's kind."""
    place = (YEARS, size, size)
    arrays = {
        "rgb": (("year", "band", "y", "x"), rng.integers(0, 256, (YEARS, 3, size, size), "u1")),
        "emb": (("year", "d", "y", "x"), rng.integers(-127, 128, (YEARS, 64, size, size), "i1")),
        "valid": (("year", "y", "x"), np.ones(place, bool)),
    }
    years = {"year": np.arange(2017, 2017 + YEARS)}
    return xr.Dataset(arrays, years, {"region": region, "preset": "strong"})


def make_data(
    folder: Path, args: argparse.Namespace, pooled: int = POOLED, history: int = 2
) -> PairDataset:
    """Pairs with captions drawn from `args.texts` texts; `pooled` is the width of a whole text."""
    rng = np.random.default_rng(0)
    cubes = [make_cube(region, 5 * args.patch, rng) for region in ("Alpha", "Beta")]
    windows = (cubes, None, args.patch, args.patch // 2, history)
    texts = [str(n) for n in range(args.texts)]
    keys = PairDataset(*windows).keys()
    captions = {key: Captions(*rng.choice(texts, 3)) for key in keys}
    encoders = RandomEncoders(args.tokens, args.width, pooled)
    store = TextStore.write(folder, texts, encoders, args.tokens, progress=False)
    lengths = (args.tokens,) * 3
    return PairDataset(*windows, captions=captions, text=store, lengths=lengths)


def plain(data: PairDataset, order: Callable[[int], list[int]], steps: range) -> Iterator[dict]:
    """Sample by sample, padded and stacked: what the feed is compared with."""

    def padded(texts: list[int]) -> dict[str, torch.Tensor]:
        length = max(data.lengths)
        hidden = torch.zeros(len(texts), length, data.text.hidden[0].shape[1])
        for row, number in zip(hidden, texts, strict=True):
            states = data.text.hidden[number][:length]
            row[: len(states)] = states
        tokens = torch.tensor([len(data.text.hidden[number]) for number in texts])
        pooled = torch.stack([data.text.pooled[number] for number in texts]).float()
        return {"hidden": hidden, "mask": torch.arange(length) < tokens[:, None], "pooled": pooled}

    for step in steps:
        samples = []
        for index in order(step):
            before, after = data.words([index])[:, 0].tolist()
            words = {"text_t": padded(before), "text_tp1": padded(after)}
            samples.append(data.pixels(index) | words)
        yield collate(samples)


def worked() -> float:
    """Seconds that cores have worked for this process and those it has ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def rate(batches: Iterator[dict], batch: int) -> tuple[float, float]:
    """Samples a second, the first batches left out (workers start, memory is laid out), and samples
    a second of a core's work, all counted.
    """
    begun = worked()
    with closing(batches):
        for _ in range(WARM):
            next(batches)
        start = time.perf_counter()
        count = sum(batch for _ in batches)
        seconds = time.perf_counter() - start
    return count / seconds, (count + WARM * batch) / (worked() - begun)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, default=64, help="pixels")
    parser.add_argument("--width", type=int, default=4096, help="of a token's state")
    parser.add_argument("--tokens", type=int, default=48, help="that a caption has at most")
    parser.add_argument("--texts", type=int, default=600, help="different captions")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40, help="measured batches of each path")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(0)
    steps = range(args.steps + WARM)
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder), args)
        data.load()

        def order(step: int) -> list[int]:
            return batch_indices(0, step, args.batch, len(data))

        paths: dict[tuple[str, str], Callable[[], Iterator[dict]]] = {
            ("plain", "0"): lambda: plain(data, order, steps)
        }
        for workers in args.workers:
            for name, device in (("feed, CPU", CPU), ("feed, to a GPU", GPU)):
                paths[name, str(workers)] = lambda device=device, workers=workers: feed(
                    data, order, steps, device, workers
                )
        rates: dict[tuple[str, str], list[tuple[float, float]]] = {path: [] for path in paths}
        for _ in range(args.repeats):
            for path, make in paths.items():
                rates[path].append(rate(make(), args.batch))
    print(
        f"{args.patch} px, {args.tokens} tokens of {args.width}, batch {args.batch}; "
        f"{os.cpu_count()} cores, torch {torch.__version__}, {platform.platform()}\n"
    )
    print("| path | workers | samples/s | ratio | samples/s of a core | ratio |")
    print("|---|---|---|---|---|---|")
    best = {
        path: [max(column) for column in zip(*turns, strict=True)] for path, turns in rates.items()
    }
    for (name, workers), (wall, core) in best.items():
        wall_before, core_before = best["plain", "0"]
        cells = f"{wall:.0f} | {wall / wall_before:.1f} | {core:.0f} | {core / core_before:.1f}"
        print(f"| {name} | {workers} | {cells} |")


if __name__ == "__main__":
    main()
