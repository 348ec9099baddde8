"""The feed: the batches that a plain loop would read, in its order, to the bit, for any number of
workers and from any step.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
import torch
import xarray as xr

from satjepa.captions.store import TextStore
from satjepa.contracts import Captions
from satjepa.data.pairs import PairDataset, collate, spread_evenly
from satjepa.models.objectives import Told
from satjepa.training import kept
from satjepa.training.feed import feed
from satjepa.training.state import batch_indices

CPU = torch.device("cpu")
SIDE = 16
STEPS = range(9)
LENGTHS = (5, 4, 6)


class Encoders:
    """A text of n words has n states, random but its own."""

    def fingerprint(self) -> str:
        return "encoders"

    def encode(self, texts: list[str], max_length: int, batch: int) -> list[tuple]:
        def one(text: str) -> tuple[torch.Tensor, torch.Tensor]:
            generator = torch.Generator().manual_seed(len(text))
            hidden = torch.randn(min(1 + text.count(" "), max_length), 8, generator=generator)
            return hidden, torch.randn(6, generator=generator)

        return [one(text) for text in texts]


def make_cube() -> xr.Dataset:
    rng = np.random.default_rng(0)
    place = ("y", "x")
    arrays = {
        "rgb": (("year", "band", *place), rng.integers(0, 256, (4, 3, 48, 48), "u1")),
        "emb": (("year", "d", *place), rng.integers(-127, 128, (4, 64, 48, 48), "i1")),
        "valid": (("year", *place), rng.random((4, 48, 48)) > 0.1),
    }
    years = {"year": np.arange(2017, 2021)}
    return xr.Dataset(arrays, years, {"region": "Alpha", "preset": "demo"})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    cube = make_cube()
    plain = PairDataset([cube], None, SIDE)
    texts = {
        key: Captions(
            "a " * (key.year - 2017), "b " * (key.x // SIDE) + "b", "c " * (key.y // SIDE * 3)
        )
        for key in plain.keys()  # noqa: SIM118
    }
    folder = tmp_path_factory.mktemp("text")
    every = {text for three in texts.values() for text in three}
    store = TextStore.write(folder, every, Encoders(), 7, progress=False)
    return PairDataset([cube], None, SIDE, history=2, captions=texts, text=store, lengths=LENGTHS)


def order_of(data: PairDataset, rank: int = 0, world: int = 1) -> Callable[[int], list[int]]:
    return lambda step: batch_indices(3, step, 4, len(data), rank, world)


def read(batches: object) -> list[dict]:
    """Copies, as words lie in memory that is used again."""
    with closing(batches):
        return [_copy(batch) for batch in batches]


def _copy(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert one["meta"] == other["meta"]
    for name in one.keys() - {"meta"}:
        pairs = [(one[name], other[name])]
        if isinstance(one[name], dict):
            pairs = [(one[name][part], other[name][part]) for part in ("hidden", "mask", "pooled")]
        for a, b in pairs:
            assert a.dtype == b.dtype and torch.equal(a, b), name


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_same_bytes_for_any_number_of_workers(data: PairDataset, workers: int) -> None:
    order = order_of(data)
    batches = read(feed(data, order, STEPS, CPU, workers))
    assert len(batches) == len(STEPS)
    for step, batch in zip(STEPS, batches, strict=True):
        assert_same(batch, collate([data[i] for i in order(step)]))
    assert batches[0]["text_t"]["hidden"].shape == (4, 3, 6, 8)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_feed_begins_at_any_step(data: PairDataset, workers: int) -> None:
    whole = read(feed(data, order_of(data), STEPS, CPU))
    rest = read(feed(data, order_of(data), range(4, 9), CPU, workers))
    assert len(rest) == 5
    for one, other in zip(whole[4:], rest, strict=True):
        assert_same(one, other)
    assert read(feed(data, order_of(data), range(9, 9), CPU, workers)) == []


def test_the_processes_of_a_run_share_its_batches(data: PairDataset) -> None:
    whole = read(feed(data, order_of(data), STEPS, CPU))
    shares = [read(feed(data, order_of(data, rank, 2), STEPS, CPU, 1)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert first["meta"] == batch["meta"][::2] and second["meta"] == batch["meta"][1::2]
        assert torch.equal(second["text_tp1"]["hidden"], batch["text_tp1"]["hidden"][1::2])


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_generators_are_left_alone(data: PairDataset, workers: int) -> None:
    before = torch.get_rng_state()
    read(feed(data, order_of(data), STEPS, CPU, workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_words_lie_still_until_the_batch_after_the_next(data: PairDataset, workers: int) -> None:
    with closing(feed(data, order_of(data), range(40), CPU, workers)) as batches:
        places = set()
        held = next(batches)
        for batch in batches:
            kept = _copy(held)
            time.sleep(0.005)  # time for the thread to go too far
            assert_same(held, kept)
            places.add(batch["text_t"]["hidden"].data_ptr())
            held = batch
    assert len(places) == (5 if workers else 2)  # the same memory again and again


class Failing:
    """Seven samples, of which the last cannot be read."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict:
        if index == 6:
            raise OSError("sample 6 is not readable")
        return {"rgb_t": torch.full((3, 2, 2), float(index)), "meta": {"x": index}}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_sample_is_an_error_in_its_place(workers: int) -> None:
    batches = feed(Failing(), lambda step: [step], range(7), CPU, workers)
    with closing(batches):
        assert [next(batches)["meta"][0]["x"] for _ in range(6)] == list(range(6))
        with pytest.raises(OSError, match="sample 6 is not readable"):
            next(batches)
    assert not multiprocessing.active_children()


def test_what_is_kept_has_words_of_its_own(
    data: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in batches of four whose memory is used again, the last one not full."""
    monkeypatch.setattr(kept, "AT_ONCE", 4)

    def told(batch: dict) -> Told:
        words = {name: value[:, 2] for name, value in batch["text_tp1"].items()}
        image = batch["rgb_t"].flatten(1)
        return Told(image, words, image[..., None], image)

    chosen = spread_evenly(len(data), 14)
    made = kept.keep(data, chosen, told, CPU)
    fresh = told(collate([data[i] for i in chosen]))
    assert len(chosen) == len(made.tokens) == 14
    assert torch.equal(made.caption["mask"], fresh.caption["mask"])
    for name in ("hidden", "pooled"):
        assert torch.equal(made.caption[name], fresh.caption[name].half()), name
    assert torch.equal(made.tokens, fresh.tokens.half())


def test_closing_ends_the_workers_and_ctrl_c_does_not(data: PairDataset) -> None:
    batches = feed(data, order_of(data), range(200), CPU, 2)
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    time.sleep(0.3)  # both have begun
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
    for _ in range(20):
        next(batches)
    assert all(worker.is_alive() for worker in workers)
    batches.close()
    assert not multiprocessing.active_children()


@pytest.mark.gpu
def test_a_gpu_gets_the_same_numbers(data: PairDataset) -> None:
    order = order_of(data)
    for workers in (0, 2):
        batches = read(feed(data, order, range(40), torch.device("cuda"), workers))
        for step, batch in enumerate(batches):
            here = {
                name: {part: tensor.cpu() for part, tensor in value.items()}
                if isinstance(value, dict)
                else value
                if name == "meta"
                else value.cpu()
                for name, value in batch.items()
            }
            assert_same(here, collate([data[i] for i in order(step)]))
            assert batch["text_t"]["hidden"].is_cuda
