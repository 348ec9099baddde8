"""Joint training: one flat loop, exact to the bit when it is stopped and resumed.

What is random in step k (samples, noise, noise levels, drops) is a function of (seed, k) alone, so
that little has to be saved: weights, their averages, the optimiser's moments, the step, and the
global generators for a model that uses them.

    <run_dir>/resume/, <run_dir>/model/    checkpoints of the run, unfinished and finished
                                           (`satjepa.training.run`)
    <run_dir>/log.csv    every named part of the loss, learning rate, gradient norm, flow loss by
                         noise level (flow.s0: sigma in [0, 0.1), ...), averaged over the steps
                         since the line before; empty where there is none
    <run_dir>/lesson.csv errors of the reader's lesson, where there is one
    <run_dir>/speed.csv  step, seconds, images/s
    <run_dir>/run.json   why it stopped, wall time, machine, git revision
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from satjepa.models.averages import memory
from satjepa.models.compiled import is_on
from satjepa.models.drops import Chances, sample_drops
from satjepa.models.flow import sample_sigmas
from satjepa.training import checkpoint, provenance
from satjepa.training.advance import GraphedAdvance, advance
from satjepa.training.environment import make_accelerator
from satjepa.training.feed import feed
from satjepa.training.lesson import teach
from satjepa.training.log import Report, Stop
from satjepa.training.optim import make_stepping, step_if
from satjepa.training.readings import Readings
from satjepa.training.run import Interrupted, Run, facts
from satjepa.training.schedules import linear
from satjepa.training.state import (
    batch_indices,
    optimizer_tensors,
    restore_optimizers,
    rng_state,
    seed_of,
    set_rng_state,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

    from satjepa.config import Params
    from satjepa.config.sections import Train
    from satjepa.models.drops import Drops
    from satjepa.models.joint import JointModel
    from satjepa.training.checkpoint import Checkpoint
    from satjepa.training.optim import Stepping


@dataclass(frozen=True)
class Plan:
    """All that is random in a run, as a function of the step: nothing to save, nothing to skip on
    resuming.

    samples: size of the dataset. shape: of a latent (C,h,w). how: the `train` section. rank of
    world processes.
    """

    samples: int
    shape: tuple[int, int, int]
    how: Train
    seed: int
    rank: int = 0
    world: int = 1

    def indices(self, step: int) -> list[int]:
        """This process's share of the step's batch: the next piece of an endless row of
        permutations, one per epoch.
        """
        return batch_indices(self.seed, step, self.how.batch, self.samples, self.rank, self.world)

    def draw(self, step: int) -> tuple[Tensor, Tensor, Drops]:
        """This process's share of noise (B,C,h,w), noise levels (B,) and drops (B,), drawn for the
        whole batch.
        """
        generator = torch.Generator().manual_seed(seed_of("step", self.seed, step))
        how = self.how
        noise = torch.randn(how.batch, *self.shape, generator=generator)
        sigma = sample_sigmas(how.batch, how.timestep_mean, how.timestep_std, generator)
        chances = Chances(
            how.caption_dropout, how.token_dropout, how.true_captions, how.quarter_dropout
        )
        drops = sample_drops(how.batch, chances, generator)
        mine = slice(self.rank, None, self.world)
        return noise[mine], sigma[mine], type(drops)(*(drop[mine] for drop in drops))


def train(
    model: JointModel, dataset: Any, params: Params, run_dir: str | Path,
    resume: str | Path = "auto", progress: bool = True, *, split: str | None = None,
    max_seconds: float | None = None,
) -> Path:  # fmt: skip
    """Train what the model lets train; returns the folder of the finished checkpoint.

    Where the model has it so, I-JEPA is alone in the first `train.jepa_share` of the steps: they
    cost a third of a joint one, and the rest has little to learn from tokens that say nothing yet.
    Then the reader has a lesson of its own (`train.lesson`, `satjepa.training.lesson`), and from
    there on all losses count at once. One schedule of learning rates goes over both.

    Args:
        dataset: a `PairDataset`, or anything whose `dataset[i]` are samples for
            `satjepa.data.pairs.collate`; `train.workers` processes read them
            (`satjepa.training.feed`).
        resume: "auto" returns at once if <run_dir>/model is this very run, finished, and goes on
            from <run_dir>/resume if there is one; "no" begins anew; a path must be a checkpoint.
        progress: a bar with rate and ETA on a terminal, elsewhere a line for each line of the log.
        split: sha256 of the split, kept in the checkpoint: evaluation refuses to score with another
            one. Default: `dataset.split_hash`.
        max_seconds: stop after so long, as Ctrl-C does.

    Ctrl-C, SIGTERM and `max_seconds` let the step in hand end, save, and raise Interrupted. Raises
    CheckpointError if the checkpoint to resume is missing or of other settings, split, backbone or
    samples; NonFiniteError before a loss or a gradient that is not finite reaches the weights.
    """
    from accelerate import DistributedDataParallelKwargs
    from accelerate.utils import send_to_device, set_seed

    # what is trained, by what, in which order
    how = params.train
    alone = min(round(how.jepa_share * how.steps), how.steps - 1)  # at least one step is joint
    alone = alone if model.jepa_comes_first else 0
    has_lesson = how.lesson.steps > 0 and model.reader is not None and alone > 0
    idle = DistributedDataParallelKwargs(find_unused_parameters=alone > 0 or model.has_idle_weights)
    accelerator = make_accelerator(how.precision, [idle])
    wrapped = accelerator.prepare_model(model.train())
    stepping = make_stepping(model, how)
    plan = _plan(model, dataset, params, accelerator)
    split = dataset.split_hash if split is None else split
    run = _run(model, params, run_dir, split, progress, accelerator, plan)

    # where it begins
    if resume == "auto" and run.is_finished():
        provenance.restore(checkpoint.load(run.model), model)
        return run.model
    set_seed(params.seed)
    start = _start(run.unfinished(resume), model, stepping.optimizers)
    if start <= alone and accelerator.is_main_process:
        run.report.forget_lesson()

    # what makes a step quick
    steps = range(start, how.steps)
    batches = feed(dataset, plan.indices, steps, accelerator.device, how.workers)
    readings = Readings(run, patient=accelerator.device.type != "cpu")
    forward_backward = _advance(wrapped, model, how, accelerator)
    speed = model.backbone.training_blocks(how.compile, how.checkpointing, how.precision == "bf16")
    with run.report.open(start), Stop(max_seconds) as stop, closing(batches), speed:
        for step in steps:
            if step == alone and has_lesson:
                readings.tell()
                _give_lesson(model, dataset, params, run, accelerator, stepping, stop, step)
            # I-JEPA alone needs neither noise, sigma nor drops
            drawn = plan.draw(step) if step >= alone else ()
            batch = next(batches)
            drawn = send_to_device(drawn, accelerator.device)

            # forward, backward
            parts = forward_backward((batch, *drawn)) | {"grad_norm": stepping.clip()}

            # a line of the log; nothing that is not finite goes on, and nothing waits before a line
            rate = stepping.set_rates(step)
            finite = readings.add(step, rate, parts, drawn[1] if drawn else None, batch["meta"])
            if (step + 1) % how.log_every == 0:
                readings.tell()

            # step; target encoder and averaged weights follow
            step_if(stepping.optimizers, finite)
            model.update_target(linear(step, how.steps, *how.target_ema))
            model.average_weights(memory(step, how.weight_ema))

            # save, stop if asked (any process may be)
            stopping = _is_stopping(accelerator, stop, step, how.log_every)
            saving = stopping or (step + 1) % how.checkpoint_every == 0
            if saving:
                readings.tell()
            if saving and accelerator.is_main_process:
                _save(run, model, stepping, step + 1, stop.reason if stopping else "")
            if stopping:
                raise _interrupted(stop, step + 1, how)
        readings.tell()

    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    model.eval()
    if accelerator.is_main_process:
        run.finish(how.steps, model.state(), {"step": how.steps})
    accelerator.wait_for_everyone()
    return run.model


def _give_lesson(
    model: JointModel, dataset: Any, params: Params, run: Run, accelerator: Accelerator,
    stepping: Stepping, stop: Stop, step: int,
) -> None:  # fmt: skip
    """The reader's lesson (`satjepa.training.lesson`) before a step; if it is stopped, what is
    saved is as if it had not begun.
    """
    every = params.train.log_every
    begun = time.monotonic()
    chance = rng_state()  # of a dataset that uses the global generators
    lines = teach(
        model, dataset, params.train, params.seed, accelerator,
        lambda at: _is_stopping(accelerator, stop, at, every),
    )  # fmt: skip
    if lines is None:
        set_rng_state(chance)
        if accelerator.is_main_process:
            _save(run, model, stepping, step, stop.reason)
        raise _interrupted(stop, step, params.train)
    run.report.write_lesson(lines, time.monotonic() - begun)


def _save(run: Run, model: JointModel, stepping: Stepping, step: int, stopped: str) -> None:
    moments = optimizer_tensors(stepping.optimizers, _trained(model)) | rng_state()
    run.save(step, f"stopped: {stopped}" if stopped else "running", model.state(), moments)


def _interrupted(stop: Stop, step: int, how: Train) -> Interrupted:
    done = f"stopped ({stop.reason}) after step {step} of {how.steps}"
    return Interrupted(f"{done}, saved: run again to go on")


def _trained(model: JointModel) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _start(
    found: Checkpoint | None, model: JointModel, optimizers: list[torch.optim.Optimizer]
) -> int:
    """The step to begin with, everything as it was left by the one before it."""
    if found is None:
        return 0
    model.load_state({name: tensor.to(model.device) for name, tensor in found.tensors.items()})
    restore_optimizers(optimizers, _trained(model), found.optimizer)
    set_rng_state(found.optimizer)
    return found.state["step"]


def _plan(model: JointModel, dataset: Any, params: Params, accelerator: Accelerator) -> Plan:
    world = accelerator.num_processes
    side = model.backbone.latent_size(params.data.patch)
    if params.train.batch % world:
        raise ValueError(
            f"train.batch is {params.train.batch}: it must be a multiple of the {world} processes"
        )
    shape = (model.backbone.latent_channels, side, side)
    return Plan(len(dataset), shape, params.train, params.seed, accelerator.process_index, world)


def _run(
    model: JointModel, params: Params, folder: str | Path, split: str, progress: bool,
    accelerator: Accelerator, plan: Plan,
) -> Run:  # fmt: skip
    header = provenance.make_header(
        params.as_dict(), split, provenance.hash_module(model.backbone, frozen_only=True)
    )
    told = facts(
        accelerator.device, plan.samples, [p for p in model.parameters() if p.requires_grad]
    )
    told |= {"precision": params.train.precision, "processes": plan.world}
    report = Report(Path(folder), plan.how, progress, told, accelerator.is_main_process)
    return Run(Path(folder), header, plan.samples, report)


def _advance(
    wrapped: Any, model: JointModel, how: Train, accelerator: Accelerator
) -> Callable[[tuple], dict[str, Tensor]]:
    """What makes the gradients of a step: from a CUDA graph where that is asked for and can be."""
    device = accelerator.device
    alone = accelerator.num_processes == 1 and device.type == "cuda"
    if alone and model.has_static_step and is_on(how.compile, device):
        return GraphedAdvance(wrapped, model)
    return partial(advance, wrapped, model)


def _is_stopping(accelerator: Accelerator, stop: Stop, step: int, every: int) -> bool:
    """Whether this step is the last for now. Several processes ask each other, which waits for the
    device: at the lines of the log.
    """
    if accelerator.num_processes == 1:
        return bool(stop.reason)
    if stop.reason:
        accelerator.set_trigger()
    return (step + 1) % every == 0 and accelerator.check_trigger()
