"""What both variants of the model share: the frozen backbone beside it, averaged weights, their
state, forecasts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from satjepa.contracts import Batch
from satjepa.models.averages import AVERAGE, move_average
from satjepa.models.compiled import is_on
from satjepa.models.flow import patch_noise
from satjepa.models.sampling import ROWS, Levers, RowSizes, row_chunks


class Conditions(NamedTuple):
    """All that the sampler sees of the world: context (B,M,joint), pooled (B,P), and both with
    everything dropped.
    """

    context: Tensor
    pooled: Tensor
    null_context: Tensor
    null_pooled: Tensor


class JointModel(nn.Module):
    """A forecaster that trains jointly: `satjepa.models.satjepa.SatJepa` and, as published,
    `PublishedSatJepa`.

    A variant builds ``backbone`` and, with ``model.use_jepa``, ``encoder`` and ``target_encoder``;
    it says `condition` and `sample`, and how strongly the image of year t is noised to start from
    (`strength`). ``reader`` is what puts words in their place, None where a variant has none.
    """

    def __init__(self, params: Any) -> None:
        super().__init__()
        self.params = params
        self.levers = Levers()
        self.reader: nn.Module | None = None
        self._row_sizes = RowSizes()
        self._average: dict[str, Tensor] = {}
        self._trained: list[nn.Parameter] | None = None  # of the same order, looked up once

    @property
    def strength(self) -> float:
        """Noise level that a forecast starts from: 1 is pure noise; below, the rest is the image of
        year t.
        """
        return self.params.sample.strength

    def with_sampling(self, **changes: Any) -> Self:
        """The same model (the same weights, not a copy) under other settings of the ``sample``
        section.
        """
        other = copy.copy(self)
        sample = self.params.sample.model_copy(update=changes)
        other.params = self.params.model_copy(update={"sample": sample})
        return other

    @property
    def guidance(self) -> float:
        """Classifier-free guidance that forecasts are drawn with: 1 is none."""
        return self.params.sample.guidance

    @property
    def steps(self) -> int:
        """Steps of the sampler that forecasts are drawn with."""
        return self.params.sample.steps

    @property
    def sampler(self) -> str:
        """The sampler in words, and whether a pixel of the last image reaches it."""
        start = "pure noise, strict zero-RGB"
        if self.strength != 1:
            start = f"the last image, strength {self.strength:g}: not zero-RGB"
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        return f"{steps} from {start}; guidance {self.guidance:g}"

    @property
    def jepa_comes_first(self) -> bool:
        """Whether I-JEPA is trained alone in the first steps (`train.jepa_share`); not so as
        published.
        """
        return False

    @property
    def has_idle_weights(self) -> bool:
        """Whether some of what should train has no part in the loss, which several processes must
        be told.
        """
        return False

    @property
    def has_static_step(self) -> bool:
        """Whether the training step is the same kernels for every batch of a shape, so that a CUDA
        graph can hold it.
        """
        return False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def latent(self, batch: Batch) -> Tensor:
        """Latent of RGB(t+1) (B,C,h,w): stored, or encoded now."""
        return (
            batch["latent_tp1"] if "latent_tp1" in batch else self.backbone.encode(batch["rgb_tp1"])
        )

    @torch.no_grad()
    def forecast(self, batch: Batch, samples: int = 1, seed: int = 0, first: int = 0) -> Tensor:
        """Forecaster protocol: ``samples`` forecasts of each patch, (samples,B,3,H,W) float32 in
        [0, 1] on the CPU; of an ensemble, those from number ``first`` on.

        Made with the averaged weights and the ``sample`` section of the parameters. Noise belongs
        to (seed, sample, place), so a patch is forecast alike in any batch.
        """
        from accelerate.utils import send_to_device

        backbone = self.backbone
        side = backbone.latent_size(self.params.data.patch)
        shape = (backbone.latent_channels, side, side)
        noise = [patch_noise(batch["meta"], s, seed, shape) for s in range(first, first + samples)]
        noise = torch.cat(noise).to(self.device)  # (samples B,C,h,w)
        batch = send_to_device(batch, self.device)
        choice = self.params.sample.compile
        with self.averaged(), backbone.sampling(choice, self.levers.fold):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_low_precision):
                conditions = self.condition(batch)
            start = backbone.encode(batch["rgb_t"]) if self.strength < 1 else None
            images = self._images(conditions, start, noise, is_on(choice, self.device))
        return images.unflatten(0, (samples, -1)).cpu()

    @property
    def _is_low_precision(self) -> bool:
        """Whether conditions are computed as they were in training: bfloat16, on CUDA alone."""
        return self.device.type == "cuda" and self.params.train.precision == "bf16"

    def _images(
        self, conditions: Conditions, start: Tensor | None, noise: Tensor, static: bool
    ) -> Tensor:
        """Forecasts (R,3,H,W) of R rows of noise, sample-major; all shapes alike where ``static``.

        conditions, start: of the B places.
        """
        settings = self.params.sample
        places = len(conditions.context)
        size = ROWS[self.device.type] if self.levers.together else places
        images = []
        for rows, count in row_chunks(len(noise), size, self._row_sizes if static else None):
            place = (rows % places).to(self.device)
            given = Conditions(*(part[place] for part in conditions))
            begin = None if start is None else start[place]
            z = noise[rows.to(self.device)]
            z = self.sample(given, z, settings.steps, self.guidance, begin, self.strength)
            images.append(self.backbone.decode(z)[:count])
        return torch.cat(images)

    def trainable_names(self) -> list[str]:
        """Names of the parameters that train: all of ours but the target encoder, and the
        backbone's LoRA.
        """
        return [name for name, p in self.named_parameters() if p.requires_grad]

    def update_target(self, momentum: float) -> None:
        """Target encoder <- momentum * target encoder + (1 - momentum) * encoder."""
        if self.params.model.use_jepa:
            move_average(
                list(self.target_encoder.parameters()), list(self.encoder.parameters()), momentum
            )

    @torch.no_grad()
    def average_weights(self, momentum: float) -> None:
        """Move the average of what trains towards its present value; the first call copies it."""
        if not self._average:
            trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
            self._average = {name: p.detach().clone() for name, p in trained.items()}
        if self._trained is None:
            parameters = dict(self.named_parameters())
            self._trained = [parameters[name] for name in self._average]
        move_average(list(self._average.values()), self._trained, momentum)

    @torch.no_grad()
    def start_average(self, part: nn.Module) -> None:
        """The average of a part's weights begins anew at their present values."""
        own = {id(p) for p in part.parameters()}
        for name, p in self.named_parameters():
            if id(p) in own and name in self._average:
                self._average[name].copy_(p)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has its averaged weights (if there are any); afterwards the trained
        ones are back.
        """
        parameters = dict(self.named_parameters())
        trained = {name: parameters[name].data for name in self._average}
        try:
            for name, average in self._average.items():
                parameters[name].data = average.to(trained[name].device)
            yield
        finally:
            for name, value in trained.items():
                parameters[name].data = value

    def state(self) -> dict[str, Tensor]:
        """All but the frozen backbone: what trains, target encoder, fixed tables, averages as
        ``average.<name>``.
        """
        trained = set(self.trainable_names())
        mine = {
            k: v
            for k, v in self.state_dict().items()
            if not k.startswith("backbone.") or k in trained
        }
        return mine | {AVERAGE + name: value for name, value in self._average.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` returned. ValueError names tensors that are missing or unknown."""
        average = {
            name.removeprefix(AVERAGE): v for name, v in state.items() if name.startswith(AVERAGE)
        }
        mine = {name: v for name, v in state.items() if not name.startswith(AVERAGE)}
        _require_names(mine, {name for name in self.state() if not name.startswith(AVERAGE)})
        self.load_state_dict(mine, strict=False)
        self._average = {name: v.detach().clone() for name, v in average.items()}
        self._trained = None

    def load_averages(self, averages: dict[str, Tensor]) -> None:
        """Take over averaged weights by their own names (`satjepa.training.export`), to forecast.

        The target encoder, which training alone asks, is removed. ValueError names tensors that are
        missing or unknown.
        """
        _require_names(averages, set(self.trainable_names()))
        self.load_state_dict(averages, strict=False)
        if self.params.model.use_jepa:
            del self.target_encoder


def _require_names(state: dict[str, Tensor], wanted: set[str]) -> None:
    if odd := sorted(wanted ^ state.keys()):
        raise ValueError(
            f"the state is of another model: {len(odd)} tensors missing or unknown, such as "
            f"{odd[:3]}"
        )
