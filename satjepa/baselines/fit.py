"""Training of the baselines: one plain loop for all of them, exact to the bit when it is stopped
and resumed.

What the loop asks of a model, an `nn.Module`:

    Model(**sizes)
        sizes       the keys of the arm's `model` and `sample` sections in params.yaml
    loss(batch, generator, step) -> (loss, parts)
        batch       dict of `satjepa.data.pairs.collate`, its tensors on the device of the model
        generator   torch.Generator on the CPU, a function of (seed, step): noise, noise levels,
                    masks are drawn from it and then moved; the global generator is seeded likewise,
                    for dropout
        step        optimiser steps made so far, from 0
        loss        scalar with a gradient; only pixels valid in both years have a part in it
        parts       name -> detached scalar, a column of log.csv; not "grad_norm", "val_loss"
        In eval mode (`self.training` is False) the loss is what the weights are selected by: it is
        then asked without gradient and with the same generators each time, and `step` is the one
        just made.
    forecast(batch, samples, seed) -> (samples, B, 3, H, W)
        float32 in [0, 1] on the CPU; in eval mode, no gradient

What a run leaves in its folder is that of `satjepa.training.loop`; the model's checkpoint holds the
weights with the lowest validation loss, of their moving average where there is one. Frozen
parameters are neither trained nor saved.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from satjepa.assemble import the_device
from satjepa.models.averages import memory, move_average
from satjepa.training import checkpoint, provenance
from satjepa.training.checkpoint import Checkpoint, CheckpointError
from satjepa.training.feed import feed
from satjepa.training.log import Report, Stop
from satjepa.training.run import Interrupted, Run, facts
from satjepa.training.schedules import one_cycle, warmup_constant
from satjepa.training.state import batch_indices, optimizer_tensors, restore_optimizers, seed_of

if TYPE_CHECKING:
    from satjepa.config.baselines import Fit

Tensors = dict[str, Tensor]


def fit(
    model: nn.Module, data: Any, validation: list[dict[str, Any]], how: Fit, run_dir: str | Path,
    header: dict[str, Any], seed: int, progress: bool = True, max_seconds: float | None = None,
    workers: int = 0,
) -> Path:  # fmt: skip
    """Train what the model lets train; returns the folder of the finished checkpoint, whose weights
    the model then has.

    Args:
        data: `data[i]` are samples for `satjepa.data.pairs.collate`; read by as many processes as
            `workers` says (`satjepa.training.feed`).
        validation: batches, the same at each validation.
        header: of the checkpoint, from `make_header`. A run finished under an equal one is taken as
            it is, one that is not finished goes on.
        progress, max_seconds: as in `satjepa.training.loop.train`, which also says when
            Interrupted, NonFiniteError and CheckpointError are raised.
    """
    device = the_device()
    model.to(device).train()
    state = _State(model, how)
    told = facts(device, len(data), [*state.named.values()])
    report = Report(Path(run_dir), how, progress, told, every=how.val_every)
    run = Run(Path(run_dir), header, len(data), report)
    if run.is_finished():
        return _finished(run, model)
    saved = run.unfinished()
    start = 0 if saved is None else state.restore(saved)

    steps = range(start, how.steps)
    batches = feed(
        data, lambda step: batch_indices(seed, step, how.batch, len(data)), steps, device, workers
    )
    with report.open(start), Stop(max_seconds) as stop, closing(batches):
        for step, batch in zip(steps, batches, strict=True):
            # forward, backward; nothing that is not finite goes on
            loss, parts = model.loss(batch, _seeded("step", seed, step), step)
            norm = state.gradient(loss)
            values = _numbers({"loss": loss.detach(), **parts, "grad_norm": norm})
            run.require_finite(values, step, batch["meta"])

            # step, judge
            rate = state.step(step)
            if (step + 1) % how.val_every == 0:
                values["val_loss"] = state.judge(validation, step)
                run.require_finite(values, step, batch["meta"])

            # log, save, stop if asked
            report.add(step + 1, rate, values)
            if stop.reason or (step + 1) % how.checkpoint_every == 0:
                reason = f"stopped: {stop.reason}" if stop.reason else "running"
                run.save(step + 1, reason, state.tensors(), state.moments(), best=state.best)
            if stop.reason:
                raise Interrupted(
                    f"stopped ({stop.reason}) after step {step + 1} of {how.steps}: run again to "
                    "go on"
                )

    run.finish(how.steps, state.kept, state.best)
    return _finished(run, model)


class _State:
    """All that changes in a run: weights, optimiser's moments, moving average, and the best weights
    so far (`kept`).
    """

    def __init__(self, model: nn.Module, how: Fit) -> None:
        self.model = model
        self.how = how
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.named.values(), how.lr, weight_decay=how.weight_decay
        )  # 0: Adam
        self.average = (
            {name: p.detach().clone() for name, p in self.named.items()} if how.ema else {}
        )
        self.best: dict[str, float] = {}
        self.kept: Tensors = {}

    def gradient(self, loss: Tensor) -> Tensor:
        """Backward, and the norm of the gradient before it is clipped."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return nn.utils.clip_grad_norm_(self.named.values(), self.how.grad_clip or math.inf)

    def step(self, step: int) -> float:
        """Move the weights and their average; returns the learning rate."""
        how = self.how
        rate = warmup_constant(step, how.warmup, how.lr)
        beta1 = 0.9
        if how.schedule == "onecycle":
            rate, beta1 = one_cycle(step, how.steps, how.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            group["betas"] = (beta1, 0.999)
        self.optimizer.step()
        if self.average:
            weights = [self.named[name].detach() for name in self.average]
            move_average(list(self.average.values()), weights, memory(step, how.ema))
        return rate

    def judge(self, validation: list[dict[str, Any]], step: int) -> float:
        """Loss of the averaged weights on the validation batches; they are kept if there was none
        lower.
        """
        with self._averaged():
            loss = validation_loss(self.model, validation, step)
            if loss < self.best.get("val_loss", math.inf):
                self.best = {"step": step + 1, "val_loss": loss}
                self.kept = {
                    name: tensor.clone() for name, tensor in trained_tensors(self.model).items()
                }
        return loss

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within, the model has the averaged weights, where there are any."""
        own = {name: self.named[name].detach().clone() for name in self.average}
        self._copy(self.average)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, weights: Tensors) -> None:
        for name, tensor in weights.items():
            self.named[name].copy_(tensor)

    def tensors(self) -> Tensors:
        """What a checkpoint of an unfinished run holds."""
        groups = {"model": trained_tensors(self.model), "average": self.average, "kept": self.kept}
        return {
            f"{group}/{name}": tensor
            for group, part in groups.items()
            for name, tensor in part.items()
        }

    def moments(self) -> Tensors:
        """Those of the optimiser."""
        return optimizer_tensors([self.optimizer], self.named)

    def restore(self, found: Checkpoint) -> int:
        """Go on from a checkpoint of `tensors` and `moments`; returns the steps it has made."""
        groups: dict[str, Tensors] = {"model": {}, "average": {}, "kept": {}}
        for full, tensor in found.tensors.items():
            group, name = full.split("/")
            groups[group][name] = tensor.to(the_device())
        load_trained(self.model, groups["model"])
        self.average = groups["average"]
        self.kept = groups["kept"]
        self.best = found.state["best"]
        restore_optimizers([self.optimizer], self.named, found.optimizer)
        return found.state["step"]


@torch.no_grad()
def validation_loss(model: nn.Module, batches: list[dict[str, Any]], step: int) -> float:
    """Mean over the samples of the loss in eval mode; each batch has a generator of its own, the
    same each time.
    """
    from accelerate.utils import send_to_device

    model.eval()
    total = sum(
        len(batch["meta"])
        * float(model.loss(send_to_device(batch, the_device()), _seeded("val", i), step)[0])
        for i, batch in enumerate(batches)
    )
    model.train()
    return total / sum(len(batch["meta"]) for batch in batches)


def trained_tensors(model: nn.Module) -> Tensors:
    """What training changes: the parameters that are not frozen, and the buffers of their modules
    (batch norm's statistics; not the positions of a frozen SD 3.5, which are 0.9 GB).
    """
    trains = {name: p.requires_grad for name, p in model.named_parameters()}
    owners = {name.rpartition(".")[0] for name, does in trains.items() if does}
    return {
        k: v for k, v in model.state_dict().items() if trains.get(k, k.rpartition(".")[0] in owners)
    }


def load_trained(model: nn.Module, tensors: Tensors) -> None:
    """Inverse of `trained_tensors`; CheckpointError unless the names are the same."""
    if differing := sorted(tensors.keys() ^ trained_tensors(model).keys()):
        raise CheckpointError(
            f"weights of another model: {differing[0]} and {len(differing) - 1} more differ"
        )
    model.load_state_dict(tensors, strict=False)


def make_header(
    config: dict[str, Any], split: str, backbone: str, model: nn.Module
) -> dict[str, Any]:
    """Header of a checkpoint: all settings that decide the weights, sha256 of split, frozen
    backbone ("" for none) and code of loop and model.
    """
    own = type(model).__module__.removeprefix("satjepa.").replace(".", "/")
    code = ("baselines/fit.py", "baselines/clips.py", f"{own}.py")
    config = json.loads(json.dumps(config))  # tuples as JSON gives them back
    return {
        "config": config,
        "code": provenance.code_digest(code),
        "split": split,
        "backbone": backbone,
    }


def _numbers(parts: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(part) for name, part in parts.items()}


def _seeded(*key: object) -> torch.Generator:
    """A generator of a key, the global one being seeded alike."""
    torch.manual_seed(seed_of("global", *key))
    return torch.Generator().manual_seed(seed_of(*key))


def _finished(run: Run, model: nn.Module) -> Path:
    load_trained(model, checkpoint.load(run.model).tensors)
    model.eval()
    return run.model
