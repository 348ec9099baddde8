"""What `SatJepa` is trained on: its parts against what is known of year t+1."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from satjepa.contracts import SEMANTIC
from satjepa.models.caption_forecaster import Caption
from satjepa.models.caption_tensors import fitted
from satjepa.models.jepa import Encoder, patch_cells, patch_mean
from satjepa.models.joint import Batch, JointModel
from satjepa.models.losses import Loss, caption_loss, ijepa_loss
from satjepa.models.reader import Reader, layout_loss


class Told(NamedTuple):
    """B windows as the reader learns from them (`satjepa.training.lesson`).

    tokens: of t+1, (B,N,D). caption: the true semantic one of t+1. vectors, weight: of
    AlphaEarth(t+1), layer-normed (B,N,cells^2,64), and how much of each is known (B,N,cells^2).
    """

    tokens: Tensor
    caption: Caption
    vectors: Tensor
    weight: Tensor


class Objectives(JointModel):
    """The losses of I-JEPA, of the reader and of the caption forecaster; that of the flow is
    `satjepa.models.losses.flow_loss`.

    cells: AlphaEarth vectors a side of a token. lengths: words of each kind of caption.
    """

    cells: int
    lengths: tuple[int, ...]
    reader: Reader | None
    target_encoder: Encoder

    def ijepa_loss(self, batch: Batch, tokens: Tensor, projected: Tensor) -> Loss:
        """Predicted tokens against AlphaEarth(t+1) and the target encoder's features of RGB(t+1),
        where valid.
        """
        patch = self.params.model.encoder.patch
        valid = batch["valid_tp1"]
        vectors, weight = self.observed(batch)
        vectors = vectors.flatten(1, 2)  # (B,N cells^2,64), (B,N cells^2)
        weight = weight.flatten(1)
        with torch.no_grad():
            features = self.target_encoder(2 * batch["rgb_tp1"] - 1)  # (B,N,D)
        _, weight_feat = patch_mean(valid.to(tokens.dtype), patch)  # (B,N)
        said = projected.unflatten(-1, (-1, 64)).flatten(1, 2)  # (B,N cells^2,64)
        targets = (vectors, tokens, features, weight, weight_feat)
        return ijepa_loss(said, *targets, self.params.loss, spatial="channel")

    def observed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """AlphaEarth vectors of t+1 (B,N,cells^2,64), layer-normed, and their weight
        (B,N,cells^2).
        """
        known = batch["emb_valid"] & batch["valid_tp1"]
        return patch_cells(batch["emb_tp1"], self.params.model.encoder.patch, self.cells, known)

    def layout_loss(self, batch: Batch, layout: Tensor) -> dict[str, tuple[float, Loss]]:
        """The loss of the reader by its name and weight; nothing without one."""
        if self.reader is None:
            return {}
        return {"layout": (self.params.loss.layout, layout_loss(layout, *self.observed(batch)))}

    def semantic(self, captions: Caption) -> Caption:
        """Of three captions (B,3,...) the semantic one, (B,L,...), L as it is read."""
        words = {name: value[:, SEMANTIC] for name, value in captions.items()}
        return fitted(words, self.lengths[SEMANTIC])

    def caption_loss(self, batch: Batch, captions: Caption) -> Loss:
        """Forecast semantic caption against the caption written from RGB(t+1)."""
        forecast = self.semantic(captions)  # (B,L,...)
        observed = self.semantic(batch["text_tp1"])
        pooled = (forecast["pooled"], observed["pooled"])
        return caption_loss(forecast["hidden"], observed["hidden"], observed["mask"], pooled)

    def told(self, batch: Batch) -> Told:
        """Of a batch what the reader learns from, its tokens as they are foreseen now."""
        tokens, _ = self.predict(batch["rgb_t"], self.remember(batch))
        return Told(tokens, self.semantic(batch["text_tp1"]), *self.observed(batch))

    def lesson_loss(self, told: Told, mute: Tensor) -> Tensor:
        """The error of the layouts that are read with the captions, with none in the samples `mute`
        (B,); it changes the reader alone.
        """
        with torch.no_grad():
            projected = self.projection(told.tokens)
        layout = self.read(told.tokens, projected, told.caption, mute)
        return layout_loss(layout, told.vectors, told.weight)[0]
