"""How the published system steps: seven groups of parameters, each clipped by itself, three
schedules.

In a loop (golden m): `Schedule.at(step)`, `set_rates`, `clip_each_group`, `optimizer.step()`,
`model.update_target`; in `satjepa.training.loop`, `PublishedStepping` does so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from satjepa.models.published.model import PublishedSatJepa
from satjepa.training.schedules import cosine, linear, warmup_cosine

if TYPE_CHECKING:
    from satjepa.config.sections import Train

Group = dict[str, Any]


class Rates(NamedTuple):
    """What holds in one step: learning rate, weight decay, momentum of the target encoder."""

    lr: float
    weight_decay: float
    momentum: float


@dataclass(frozen=True)
class Schedule:
    """Schedules of I-JEPA: warm-up and cosine for the rate, cosine for the decay (it grows), a line
    for the momentum.

    scale stretches them all past the end of training (published: 1.0).
    """

    steps_per_epoch: int
    epochs: int
    warmup_epochs: float
    start_lr: float
    lr: float
    final_lr: float
    weight_decay: float
    final_weight_decay: float
    momentum: tuple[float, float]
    scale: float = 1.0

    def at(self, step: int) -> Rates:
        """Rates of optimiser step ``step`` (from 0): rate and decay are those of step + 1, momentum
        of step.
        """
        real = self.scale * self.epochs * self.steps_per_epoch
        total = int(real)
        warmup = int(self.warmup_epochs * self.steps_per_epoch)
        return Rates(
            warmup_cosine(step + 1, total, warmup, self.start_lr, self.lr, self.final_lr),
            cosine(step + 1, total, self.weight_decay, self.final_weight_decay),
            linear(step, real, *self.momentum),
        )


class PublishedStepping:
    """`satjepa.training.optim.Stepping` of the published system under a ``train`` section, whose
    run counts as one epoch.
    """

    def __init__(self, model: PublishedSatJepa, how: Train) -> None:
        if how.muon_lr is not None:
            raise ValueError("train.muon_lr: the published system has AdamW alone, so null")
        start, end = (share * how.lr for share in how.lr_ends)
        self.norm = how.grad_clip
        fused = next(model.parameters()).is_cuda or None
        self.optimizers = [torch.optim.AdamW(parameter_groups(model), fused=fused)]
        self.schedule = Schedule(
            how.steps, 1, how.warmup, start, how.lr, end, *how.weight_decay, momentum=how.target_ema
        )

    def set_rates(self, step: int) -> float:
        """Rates of a step (from 0) into the groups; returns the learning rate."""
        rates = self.schedule.at(step)
        set_rates(self.optimizers[0], rates)
        return rates.lr

    def clip(self) -> Tensor:
        """Clip each group to `grad_clip` by itself; returns the norm of all gradients before."""
        return torch.stack(clip_each_group(self.optimizers[0], self.norm)).norm()


def parameter_groups(model: PublishedSatJepa) -> list[Group]:
    """The seven groups for AdamW, in the published order; "decays" says whether weight decay
    touches a group.

    Only of encoder and predictor are biases and norms spared: in the other groups all decays
    (published).
    """
    forecaster = model.forecaster.parameters() if model.params.model.use_captions else ()
    adapter = (
        *model.adapter.parameters(),
        *(p for p in model.backbone.parameters() if p.requires_grad),
    )
    rows = [
        ("encoder", _weights(model.encoder, True), True),
        ("predictor", _weights(model.predictor, True), True),
        ("encoder, biases and norms", _weights(model.encoder, False), False),
        ("predictor, biases and norms", _weights(model.predictor, False), False),
        ("projection", model.projection.parameters(), True),
        ("adapter and LoRA", adapter, True),
        ("forecaster", forecaster, True),
    ]
    return [{"name": name, "params": [*params], "decays": decays} for name, params, decays in rows]


def set_rates(optimizer: torch.optim.Optimizer, rates: Rates) -> None:
    """Put learning rate and decay of a step into the groups of `parameter_groups`."""
    for group in optimizer.param_groups:
        group["lr"] = rates.lr
        group["weight_decay"] = rates.weight_decay if group["decays"] else 0.0


def clip_each_group(optimizer: torch.optim.Optimizer, norm: float) -> list[Tensor]:
    """Clip the gradients of every group to ``norm`` by itself; returns the norms there were (0
    without a gradient), on the device of the weights.
    """
    groups = [group["params"] for group in optimizer.param_groups]
    device = next(p.device for params in groups for p in params)
    return [nn.utils.clip_grad_norm_(params, norm).to(device) for params in groups]


def _weights(module: nn.Module, wanted: bool) -> list[nn.Parameter]:
    """Parameters of a module that are weights (neither called bias nor of one axis), or, if not
    wanted, the others.
    """
    return [
        p for name, p in module.named_parameters() if wanted == ("bias" not in name and p.ndim != 1)
    ]
