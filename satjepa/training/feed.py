"""The batches of a training run, on its device, read ahead of it by worker processes.

Which samples are in which batch is a function of the step alone, so a run that goes on begins its
feed at that step, and the bytes are the same for any number of workers.

    worker processes   cut and decode the pixels of whole batches   -> shared memory
    one thread         gathers the words of a batch from the mapped store into memory that is used
                       again and again, pinned where there is a GPU
    this process       moves the batch to the device, without waiting for it

Words are bfloat16 until they are on a GPU, and float32 there: half the bytes on the way, the same
numbers. With 0 workers all this happens in the training process, when a batch is asked for: on few
cores that is the quickest, as a worker's batch goes through shared memory (benchmarks/loader.py:
826 samples for a second of a core's work without workers, 326 with one).
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from satjepa.captions.store import TextBuffer
from satjepa.contracts import Batch
from satjepa.data.pairs import PairDataset, collate

AHEAD = 2  # batches that each worker, and the thread, may be ahead of the step


def feed(
    dataset: Any,
    indices: Callable[[int], Sequence[int]],
    steps: range,
    device: torch.device,
    workers: int = 0,
) -> Iterator[Batch]:
    """The batch of each step (`satjepa.contracts.Batch`) on `device`.

    A batch's words may be overwritten once the batch after the next is asked for. Close the
    iterator (`contextlib.closing`) where its end is not reached: that ends the workers.

    Args:
        dataset: a `PairDataset`, or anything whose `dataset[i]` are samples for `collate`.
        indices: step -> the samples of this process's share of the batch; always as many.
        workers: processes, forked from this one. They share what a `PairDataset` holds in memory,
            and hand their batches over in /dev/shm: up to 2 a worker, each 8 MB a sample of 128
            pixels, which a container may have to be allowed (`docker run --shm-size`).
    """
    loader = DataLoader(
        _Pixels(dataset),
        batch_sampler=_Order(indices, steps),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # its own: the global one is part of the run
        prefetch_factor=AHEAD if workers else None,
        multiprocessing_context="fork" if workers else None,
    )
    if workers and isinstance(dataset, PairDataset):
        dataset.load()
    pixels = iter(loader)  # forks the workers: here, not in the thread
    batches = _with_words(dataset, pixels, map(indices, steps), device, AHEAD + 3 if workers else 2)
    if workers:
        batches = _ahead(batches)
    try:
        for batch, slot in batches:
            yield slot.move(batch, device)
    finally:
        batches.close()
        if workers:
            pixels._shutdown_workers()  # which else waits until no traceback holds them


class _Pixels(Dataset):
    """What a worker reads of a dataset: of a `PairDataset` all but the words."""

    def __init__(self, dataset: Any) -> None:
        self.read = dataset.pixels if isinstance(dataset, PairDataset) else dataset.__getitem__
        self.samples = len(dataset)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read(index)


class _Order(Sampler[list[int]]):
    """The samples of each step."""

    def __init__(self, indices: Callable[[int], Sequence[int]], steps: range) -> None:
        self.indices = indices
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(self.indices(step)) for step in self.steps)


class _Slot:
    """Memory for the words of one batch, free again when the device has fetched them."""

    def __init__(self, buffers: list[TextBuffer] | None = None) -> None:
        self.buffers = buffers
        self.fetched: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Until the device has what lies here."""
        if self.fetched is not None:
            self.fetched.synchronize()

    def move(self, batch: Batch, device: torch.device) -> Batch:
        """The batch on the device, its words as float32."""
        moved = _to(batch, device)
        if device.type == "cuda":
            self.fetched = torch.cuda.Event()
            self.fetched.record()
        for name in ("text_t", "text_tp1"):
            for part in ("hidden", "pooled") if name in moved else ():
                moved[name][part] = moved[name][part].float()
        return moved


def _with_words(
    dataset: Any,
    pixels: Iterator[Batch],
    order: Iterator[Sequence[int]],
    device: torch.device,
    slots: int,
) -> Iterator[tuple[Batch, _Slot]]:
    """The batches with their words, in memory that goes round: `slots` batches of it. Where a
    thread makes them, two wait, one is made, and the last two that were given out are left alone.
    """
    text = dataset.text if isinstance(dataset, PairDataset) else None
    cuda = device.type == "cuda"
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    ring: list[_Slot] = []
    for chosen, batch in zip(order, pixels, strict=True):
        if text is None:
            yield batch, _Slot()
            continue
        numbers = dataset.words(chosen)  # (2,B,3)
        if len(ring) < slots:
            size = len(chosen)
            slot = _Slot([text.buffer(size, dataset.lengths, dtype, cuda) for _ in numbers])
        else:
            slot = ring.pop(0)
        ring.append(slot)
        slot.wait()
        for name, rows, buffer in zip(("text_t", "text_tp1"), numbers, slot.buffers, strict=True):
            batch[name] = dict(text.gather(rows, dataset.lengths, buffer))
        yield batch, slot


def _ahead(batches: Iterator[tuple[Batch, _Slot]]) -> Iterator[tuple[Batch, _Slot]]:
    """The same, made by a thread up to AHEAD of them before they are asked for."""
    ready: queue.Queue = queue.Queue(AHEAD)
    ended = threading.Event()

    def offer(item: Any) -> bool:
        while not ended.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in batches:
                if not offer(item):
                    break
            else:
                offer(None)
        except BaseException as error:  # raised again where the batch is asked for
            offer(error)
        finally:
            batches.close()

    maker = threading.Thread(target=make, name="feed", daemon=True)
    maker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        maker.join()


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: _to(part, device) for name, part in value.items()}
    return value  # meta


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the training one saves, and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
