"""The reader's lesson: what puts words in their place, trained by itself before the joint steps.

The reader takes tokens and gives them no gradient. So once I-JEPA has learned by itself, the tokens
of some thousand windows are made once and kept, and the reader sees many more of them than the
joint steps could show it, told the true caption of t+1: one of its steps costs a fifth of a joint
one. A reader that enters the joint steps knowing nothing is not heard in them (docs/research.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from satjepa.data.pairs import spread_evenly
from satjepa.models.objectives import Told
from satjepa.training.kept import keep, used
from satjepa.training.optim import JointStepping, descend
from satjepa.training.run import NonFiniteError
from satjepa.training.state import batch_indices, seed_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from satjepa.config.sections import Train
    from satjepa.models.joint import JointModel


def teach(
    model: JointModel,
    dataset: Any,
    how: Train,
    seed: int,
    accelerator: Accelerator,
    is_stopping: Callable[[int], bool],
) -> list[dict[str, float]] | None:
    """Train `model.reader`, all else as it is; returns the lines of its log, every
    `train.log_every` steps: step and the error of its layouts, mean since the line before.

    Everything random in it is a function of (seed, step). Where `is_stopping(step)` ends it early,
    None: nothing has changed, and the lesson is given anew when the run goes on. Raises
    NonFiniteError where an error or a gradient is not finite, and ValueError for a batch that the
    processes cannot share equally.

    Args:
        dataset: as `satjepa.training.loop.train` has it.
        how: the `train` section. `how.lesson` has windows, steps and batch; rates, decay and
            clipping are those of the joint steps, on a schedule of the lesson's own.
    """
    if how.lesson.batch % accelerator.num_processes:
        raise ValueError(
            f"train.lesson.batch is {how.lesson.batch}: it must be a multiple of the "
            f"{accelerator.num_processes} processes"
        )
    reader = model.reader
    chosen = spread_evenly(len(dataset), how.lesson.windows)
    kept = keep(dataset, chosen, model.told, model.device, how.workers, is_stopping)
    if kept is None:
        return None
    before = {name: value.clone() for name, value in reader.state_dict().items()}
    stepping = JointStepping(reader, how.model_copy(update={"steps": how.lesson.steps}))
    share = partial(_share_gradients, stepping.trained, accelerator)
    lines = []
    errors = []
    for step in tqdm(range(how.lesson.steps), "lesson", unit="step", disable=None):
        if is_stopping(step):
            reader.load_state_dict(before)
            return None
        loss = model.lesson_loss(*_drawn(kept, how, seed, step, accelerator))
        errors.append(descend(stepping, step, loss, share))
        if (step + 1) % how.log_every == 0:
            lines.append({"step": step + 1, "layout.mse": _mean(errors, step + 1)})
            errors.clear()
    reader.zero_grad()
    model.start_average(reader)
    return lines


def _drawn(
    kept: Told, how: Train, seed: int, step: int, accelerator: Accelerator
) -> tuple[Told, Tensor]:
    """This process's share of a step, and which of its windows are told nothing."""
    rank = accelerator.process_index
    world = accelerator.num_processes
    batch = how.lesson.batch
    key = seed_of("lesson", seed)
    chosen = batch_indices(key, step, batch, len(kept.tokens), rank, world)
    generator = torch.Generator().manual_seed(seed_of("lesson", seed, step))
    mute = torch.rand(batch, generator=generator) < how.caption_dropout
    device = accelerator.device
    return used(kept, chosen, device), mute[rank::world].to(device)


def _mean(errors: list[Tensor], step: int) -> float:
    mean = torch.stack(errors).mean().item()
    if not math.isfinite(mean):
        raise NonFiniteError(f"the reader's lesson, steps up to {step}: layout.mse not finite")
    return mean


def _share_gradients(trained: list[nn.Parameter], accelerator: Accelerator) -> None:
    """Gradients <- their mean over the processes."""
    if accelerator.num_processes > 1:
        for parameter in trained:
            parameter.grad = accelerator.reduce(parameter.grad, "mean")
