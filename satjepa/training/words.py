"""The lesson of words: what reads tokens and writes nothing into them, trained by itself.

Caption forecaster and reader take tokens without giving them a gradient. So once I-JEPA has learned
by itself, the tokens of some thousand windows are made once and kept, and the two see many more
samples, in larger batches, than the joint steps could give them: a step costs a twentieth of a
joint one. A reader that starts into the joint steps knowing nothing is not heard in them; one that
has had its lesson is (docs/research.md).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from satjepa.data.pairs import spread_evenly
from satjepa.models.drops import Chances, sample_drops
from satjepa.models.objectives import Lesson
from satjepa.training.feed import feed
from satjepa.training.state import batch_indices, seed_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from satjepa.config.sections import Train
    from satjepa.models.joint import JointModel

READ_AT_ONCE = 64  # windows whose tokens are made together


def teach(
    model: JointModel,
    dataset: Any,
    how: Train,
    seed: int,
    accelerator: Accelerator,
    is_stopping: Callable[[int], bool],
) -> list[dict[str, float]] | None:
    """Train `model.pupils`, all else as it is; returns the lines of its log, every
    `train.log_every` steps: step and the parts of the loss, means since the line before.

    Everything random in it is a function of (seed, step). Where `is_stopping(step)` ends it early,
    None: nothing has changed, and the lesson is given anew when the run goes on.

    Args:
        dataset: as `satjepa.training.loop.train` has it.
        how: the `train` section; `how.words` has windows, steps, batch and rate of the lesson.
    """
    words = how.words
    pupils = model.pupils
    before = {name: value.clone() for name, value in pupils.state_dict().items()}
    kept = keep(model, dataset, words.windows, how.workers)
    trained = list(pupils.parameters())
    optimizer = torch.optim.AdamW(trained, words.lr, weight_decay=words.weight_decay)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, words.lr, total_steps=words.steps)
    lines = []
    seen = []
    for step in range(words.steps):
        if is_stopping(step):
            pupils.load_state_dict(before)
            return None
        optimizer.zero_grad()
        loss, parts = model.words_loss(*_drawn(kept, how, seed, step, accelerator))
        loss.backward()
        _share_gradients(trained, accelerator)
        nn.utils.clip_grad_norm_(trained, how.grad_clip)
        optimizer.step()
        rates.step()
        seen.append(parts)
        if (step + 1) % how.log_every == 0:
            lines.append({"step": step + 1} | _means(seen))
            seen.clear()
    optimizer.zero_grad()
    model.start_average(pupils)
    return lines


@torch.no_grad()
def keep(model: JointModel, dataset: Any, windows: int, workers: int) -> Lesson:
    """The lesson of `windows` windows of the dataset, spread evenly over it, on the CPU, numbers as
    float16.
    """
    chosen = spread_evenly(len(dataset), windows)
    steps = range(0, len(chosen), READ_AT_ONCE)
    pieces = []
    batches = feed(dataset, lambda i: chosen[i : i + READ_AT_ONCE], steps, model.device, workers)
    with closing(batches):
        for batch in batches:
            pieces.append(tree_map(_small, model.lesson(batch)))
    return tree_map(lambda *parts: torch.cat(parts), *pieces)


def _drawn(
    kept: Lesson, how: Train, seed: int, step: int, accelerator: Accelerator
) -> tuple[Lesson, Tensor, Tensor]:
    """This process's share of a step: windows, which of them are told nothing, which the truth."""
    rank = accelerator.process_index
    world = accelerator.num_processes
    key = seed_of("words", seed)
    chosen = batch_indices(key, step, how.words.batch, len(kept.tokens), rank, world)
    generator = torch.Generator().manual_seed(seed_of("words", seed, step))
    chances = Chances(how.caption_dropout, 0.0, how.true_captions)
    drops = sample_drops(how.words.batch, chances, generator)
    device = accelerator.device
    mute = drops.text[rank::world].to(device)
    truth = drops.truth[rank::world].to(device)
    return tree_map(lambda x: _large(x[chosen]).to(device), kept), mute, truth


def _share_gradients(trained: list[nn.Parameter], accelerator: Accelerator) -> None:
    """Gradients <- their mean over the processes."""
    if accelerator.num_processes > 1:
        for parameter in trained:
            parameter.grad = accelerator.reduce(parameter.grad, "mean")


def _means(seen: list[dict[str, Tensor]]) -> dict[str, float]:
    return {name: float(sum(parts[name] for parts in seen)) / len(seen) for name in seen[0]}


def _small(x: Tensor) -> Tensor:
    return (x.half() if x.is_floating_point() else x).cpu()


def _large(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x
