"""What `SatJepa` is trained on: its parts against what is known of year t+1."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from satjepa.contracts import SEMANTIC
from satjepa.models.caption_forecaster import Caption
from satjepa.models.caption_tensors import chosen, fitted
from satjepa.models.jepa import Encoder, patch_cells, patch_mean
from satjepa.models.joint import Batch, JointModel
from satjepa.models.losses import Loss, caption_loss, ijepa_loss, joint_loss
from satjepa.models.reader import Reader, layout_loss


class Lesson(NamedTuple):
    """B windows as caption forecaster and reader learn from them (`satjepa.training.words`).

    tokens: of t+1, (B,N,D). vectors, weight: of AlphaEarth(t+1), layer-normed (B,N,cells^2,64), and
    how much of each is known (B,N,cells^2). now, ahead: semantic captions of t and t+1.
    """

    tokens: Tensor
    vectors: Tensor
    weight: Tensor
    now: Caption
    ahead: Caption


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

    def layout_loss(
        self, layout: Tensor, vectors: Tensor, weight: Tensor
    ) -> dict[str, tuple[float, Loss]]:
        """The loss of the reader by its name and weight; nothing without one."""
        if self.reader is None:
            return {}
        return {"layout": (self.params.loss.layout, layout_loss(layout, vectors, weight))}

    def semantic(self, captions: Caption) -> Caption:
        """Of three captions (B,3,...) the semantic one, (B,L,...), L as it is read."""
        words = {name: value[:, SEMANTIC] for name, value in captions.items()}
        return fitted(words, self.lengths[SEMANTIC])

    def caption_loss(self, forecast: Caption, observed: Caption) -> Loss:
        """Forecast semantic caption (B,L,...) against the caption written from RGB(t+1)."""
        pooled = (forecast["pooled"], observed["pooled"])
        return caption_loss(forecast["hidden"], observed["hidden"], observed["mask"], pooled)

    # ------------------------------------------------------------------ the lesson of words

    @property
    def pupils(self) -> nn.Module:
        """What reads tokens and gives them no gradient: caption forecaster and reader."""
        named = {"forecaster": self.forecaster, "reader": self.reader}
        return nn.ModuleDict({name: part for name, part in named.items() if part is not None})

    def lesson(self, batch: Batch) -> Lesson:
        """Of a batch what the pupils learn from, its tokens as they are foreseen now."""
        tokens, _ = self.predict(batch["rgb_t"], self.remember(batch))
        now = self.semantic(batch["text_t"])
        return Lesson(tokens, *self.observed(batch), now, self.semantic(batch["text_tp1"]))

    def words_loss(self, lesson: Lesson, mute: Tensor, truth: Tensor) -> Loss:
        """What the pupils are trained on: the forecast caption against the true one, and the layout
        read with the true caption in the samples `truth` (B,), with none in those `mute` (B,), with
        the forecast one in the others.
        """
        weights = self.params.loss
        forecast = self.forecaster(lesson.now, lesson.tokens)
        losses = {"caption": (weights.caption, self.caption_loss(forecast, lesson.ahead))}
        told = chosen(truth, lesson.ahead, forecast)
        with torch.no_grad():
            projected = self.projection(lesson.tokens)
        layout = self.read(lesson.tokens, projected, told, mute)
        return joint_loss(losses | self.layout_loss(layout, lesson.vectors, lesson.weight))
