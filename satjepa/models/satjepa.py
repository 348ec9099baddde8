"""SatJepa: the whole model, assembled in view.

RGB(t), past years -> encoder -> predictor -> tokens(t+1)
semantic(t), tokens(t+1) -> forecaster -> semantic(t+1)
tokens, semantic(t+1) -> reader -> layout(t+1)
tokens, layout, three captions, past years -> adapter -> (context, pooled)
noise -> SD 3 + LoRA -> VAE -> RGB(t+1)
"""

from __future__ import annotations

import copy
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satjepa.contracts import SEMANTIC
from satjepa.models.adapter import STREAMS, Adapter, TemporalAttention
from satjepa.models.backbone import Backbone
from satjepa.models.caption_forecaster import Caption, CaptionForecaster
from satjepa.models.caption_tensors import fitted, semantic_of, substituted
from satjepa.models.checks import check_model
from satjepa.models.drops import Drops
from satjepa.models.flow import euler, guided, guided_at_once, noisy, sigmas, velocity_target
from satjepa.models.jepa import Encoder, Predictor, ProjectionHead, sincos_2d
from satjepa.models.joint import Batch, Conditions
from satjepa.models.layers import layer_norm0
from satjepa.models.losses import Loss, flow_loss, joint_loss
from satjepa.models.objectives import Objectives
from satjepa.models.reader import Reader, normed

# tokens of a place in earlier years (B,Y,N,D), most recent first, and which exist (B,Y)
Years = tuple[Tensor, Tensor]


class SatJepa(Objectives):
    """Forecast of next year's image.

    params: an object with the sections ``data``, ``model``, ``loss`` and ``sample`` of params.yaml.
    backbone: a `satjepa.models.backbone.Backbone`, with its LoRA. empty: embedding of the empty
    text, "hidden" (L,joint), "mask" (L,), "pooled" (P,); its L is the length of every caption.
    layout: state dict of the backbone's pre-trained layout tokens (`tiny_sd3.Layout`: positions,
    embedding.*, position.*), None for a backbone without.

    ``model.use_jepa`` or ``model.use_captions`` false: that stream is left out, as if dropped for
    every sample.
    """

    def __init__(
        self,
        params: Any,
        backbone: Backbone,
        empty: Caption,
        layout: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__(params)
        m = params.model
        grid = params.data.patch // m.encoder.patch
        positions = sincos_2d(m.encoder.dim, grid) if layout is None else layout["positions"]
        check_model(m, grid, positions, layout)
        self.lengths = tuple(params.captions.lengths or (len(empty["mask"]),) * STREAMS)
        # a side of a patch
        self.cells = 1 if layout is None else isqrt(layout["embedding.weight"].shape[1] // 64)
        if m.use_jepa:
            self._add_jepa(grid, backbone)
        if m.use_captions:
            f = m.forecaster
            self.forecaster = CaptionForecaster(
                self.lengths[SEMANTIC], empty["hidden"].shape[-1], backbone.pooled_dim,
                m.encoder.dim, f.dim, f.layers, f.heads,
            )  # fmt: skip
        self.adapter = Adapter(
            m.encoder.dim, positions, empty, m.adapter.dim, m.adapter.layers, m.adapter.heads,
            history=params.data.history if m.use_jepa else 0, cells=self.cells,
            coarse_rgb=m.coarse_rgb, lengths=self.lengths, merge=m.context_merge,
        )  # fmt: skip
        if layout is not None:
            self.adapter.warm_start(layout)
        self.reader = self._reader(positions, empty["hidden"].shape[-1])
        self.backbone = backbone

    def _add_jepa(self, grid: int, backbone: Backbone) -> None:
        """I-JEPA: encoder and its average, past years, predictor, and what is read from tokens."""
        e = self.params.model.encoder
        p = self.params.model.predictor
        side = self.params.data.patch
        years = self.params.data.history
        self.encoder = Encoder(side, e.patch, e.dim, e.depth, e.heads)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.past = TemporalAttention(e.dim, e.dim, e.heads, years) if years else None
        self.predictor = Predictor(grid, e.dim, p.dim, p.depth, p.heads, seeded=True)
        self.projection = ProjectionHead(e.dim, self.cells)
        fine = backbone.latent_size(side) // grid
        self.readout = nn.Linear(e.dim, backbone.latent_channels * fine**2)

    def _reader(self, positions: Tensor, text_dim: int) -> Reader | None:
        """Where there are tokens and captions to be read."""
        m = self.params.model
        if m.reader is None or not (m.use_jepa and m.use_captions):
            return None
        sizes = (m.reader.dim, m.reader.layers, m.reader.heads)
        length = self.lengths[SEMANTIC]
        return Reader(m.encoder.dim, positions, length, text_dim, self.cells, *sizes)

    # ------------------------------------------------------------------ training

    @property
    def jepa_comes_first(self) -> bool:
        """As `JointModel` has it: where there is an I-JEPA."""
        return self.params.model.use_jepa

    @property
    def has_static_step(self) -> bool:
        """As `JointModel` has it."""
        return True

    def forward(
        self, batch: Batch, noise: Tensor | None = None, sigma: Tensor | None = None,
        drops: Drops | None = None,
    ) -> Loss:  # fmt: skip
        """Joint loss; noise (B,C,h,w) and sigma (B,) of the flow, drops of the adapter -> (loss,
        detached parts).

        Given the batch alone: the loss of I-JEPA alone; forecaster, reader, adapter and backbone
        are not asked.
        """
        weights = self.params.loss
        latent = self.latent(batch)  # (B,C,h,w)
        years = self.remember(batch)  # (B,Y,N,D), (B,Y)
        tokens, projected = self.predict(batch["rgb_t"], years)  # (B,N,D), (B,N,64 cells^2)
        losses = {}
        if self.params.model.use_jepa:
            losses["ijepa"] = (weights.ijepa, self.ijepa_loss(batch, tokens, projected))
            losses["readout"] = (weights.readout, flow_loss(self.read_out(tokens), latent))
        if noise is None:
            return joint_loss(losses)
        captions = self.foresee(batch, tokens)  # two of t, semantic(t+1): (B,3,L,joint)
        told = self.with_truth(captions, batch, drops.truth)
        layout = self.read(tokens, projected, self.semantic(told), drops.text)  # (B,N,64 cells^2)
        losses |= self.layout_loss(batch, layout)
        context, pooled = self.adapt(batch, tokens, layout, told, drops, years)
        velocity = self.backbone(noisy(latent, noise, sigma), sigma, context, pooled)  # (B,C,h,w)
        losses["flow"] = (weights.sd, flow_loss(velocity, velocity_target(latent, noise)))
        if self.params.model.use_captions:
            losses["caption"] = (weights.caption, self.caption_loss(batch, captions))
        return joint_loss(losses)

    def predict(self, rgb_t: Tensor, years: Years | None) -> tuple[Tensor, Tensor]:
        """RGB(t) (B,3,H,W) in [0, 1] -> layer-normed tokens of t+1 (B,N,D) and their AlphaEarth
        vectors.

        Each token of t first asks its own place in past years: what grew there decides what may
        follow.
        """
        if not self.params.model.use_jepa:
            places = len(self.adapter.positions)
            dim = self.params.model.encoder.dim
            return rgb_t.new_zeros(len(rgb_t), places, dim), rgb_t.new_zeros(
                len(rgb_t), places, 64 * self.cells**2
            )
        present = self.encoder(2 * rgb_t - 1)  # (B,N,D)
        present = present if years is None else present + self.past(present, *years)
        tokens = layer_norm0(self.predictor(present))  # (B,N,D)
        return tokens, self.projection(tokens)

    def foresee(self, batch: Batch, tokens: Tensor) -> Caption:
        """The three captions (B,3,...) with the semantic one brought from t to t+1. No gradient
        flows to the tokens.
        """
        if not self.params.model.use_captions:
            return self.adapter.silence(len(tokens))
        text = fitted(batch["text_t"], max(self.lengths))  # (B,3,L,...)
        semantic = {name: value[:, SEMANTIC] for name, value in text.items()}
        forecast = self.forecaster(fitted(semantic, self.lengths[SEMANTIC]), tokens.detach())
        forecast = fitted(forecast, max(self.lengths))  # (B,L,...)
        return {
            name: torch.cat([value[:, :2], forecast[name][:, None]], 1)
            for name, value in text.items()
        }

    def with_truth(self, captions: Caption, batch: Batch, chosen: Tensor) -> Caption:
        """The captions (B,3,...) with the true semantic one of t+1 in the samples `chosen` (B,):
        the forecast one holds nothing that the tokens do not, so that words which know more are
        heard only if some are given in training.
        """
        if not self.params.model.use_captions:
            return captions
        return substituted(captions, batch["text_tp1"], semantic_of(chosen), self.lengths)

    def adapt(
        self,
        batch: Batch,
        tokens: Tensor,
        layout: Tensor,
        captions: Caption,
        drops: Drops,
        years: Years | None,
    ) -> tuple[Tensor, Tensor]:
        """All that is known -> context (B,N+L,joint), pooled (B,P). Pixels of t enter only with
        model.coarse_rgb.
        """
        m = self.params.model
        drops = drops._replace(tokens=drops.tokens | (not m.use_jepa))
        coarse = (
            F.adaptive_avg_pool2d(2 * batch["rgb_t"] - 1, m.coarse_rgb) if m.coarse_rgb else None
        )
        return self.adapter(tokens, layout, captions, drops, years, coarse)

    def read(self, tokens: Tensor, projected: Tensor, semantic: Caption, mute: Tensor) -> Tensor:
        """The layout of t+1 (B,N,64 cells^2) foreseen from the tokens, normed as in the
        pre-training of the layout tokens, with the semantic caption of t+1 (B,L,...) read into it;
        with the empty one where `mute` (B,) is set.
        """
        layout = normed(projected)
        if self.reader is None:
            return layout
        longest = fitted(semantic, max(self.lengths))
        one = {name: value[:, None] for name, value in longest.items()}  # (B,1,L,...)
        hidden, mask, _ = self.adapter.spoken(one, mute)
        length = self.lengths[SEMANTIC]
        return self.reader(tokens, layout, hidden[:, 0, :length], mask[:, 0, :length])

    def remember(self, batch: Batch) -> Years | None:
        """Tokens (B,Y,N,D) of the same place in earlier years and which exist (B,Y); the encoder
        gets no gradient.
        """
        if self.adapter.temporal is None or batch["history"].shape[1] == 0:
            return None
        years = batch["history"]  # (B,Y,3,H,W)
        with torch.no_grad():
            tokens = self.encoder(2 * years.flatten(0, 1) - 1)  # (B*Y,N,D)
        return tokens.unflatten(0, years.shape[:2]), batch["history_valid"]

    def read_out(self, tokens: Tensor) -> Tensor:
        """Linear reading of the expected latent (B,C,h,w) from tokens (B,N,D): decoded, it shows
        what they know.
        """
        grid = isqrt(tokens.shape[1])
        fine = self.readout(tokens).transpose(1, 2).unflatten(2, (grid, grid))  # (B,C f^2,g,g)
        return F.pixel_shuffle(fine, isqrt(fine.shape[1] // self.backbone.latent_channels))

    # ------------------------------------------------------------------ forecasting

    @torch.no_grad()
    def condition(self, batch: Batch) -> Conditions:
        """What the sampler may see: computed from RGB(t), its captions and earlier years; nothing
        of t+1 is read. Captions that someone gives (`text_given`) stand in place of the forecast
        ones, and where tokens are hidden (`hidden_quarters`) the captions alone say what comes.
        """
        years = self.remember(batch)
        tokens, projected = self.predict(batch["rgb_t"], years)
        captions = self.foresee(batch, tokens)
        if "text_given" in batch and self.params.model.use_captions:
            captions = substituted(captions, batch["text_given"], batch["is_given"], self.lengths)
        drops = Drops.all(tokens, False)
        drops = drops._replace(quarters=batch.get("hidden_quarters", drops.quarters))
        layout = self.read(tokens, projected, self.semantic(captions), drops.text)
        seen = self.adapt(batch, tokens, layout, captions, drops, years)
        null = self.adapt(batch, tokens, layout, captions, Drops.all(tokens, True), years)
        return Conditions(*seen, *null)

    @torch.no_grad()
    def sample(
        self, conditions: Conditions, noise: Tensor, steps: int, guidance: float = 1.0,
        start_latent: Tensor | None = None, strength: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Follow the flow from noise (B,C,h,w) to the latent of t+1, seeing only ``conditions``
        (strict zero-RGB).

        The image-initialised mode of the published system (``strength`` < 1) also takes
        ``start_latent``, the latent of RGB(t): it starts from (1 - strength) start_latent +
        strength noise. ValueError if just one of the two is given.
        """
        if (start_latent is None) != (strength == 1):
            raise ValueError(
                "strength 1 starts from pure noise, below 1 from a start_latent: give both or "
                "neither"
            )
        conditions = [part.to(self.backbone.dtype) for part in conditions]
        seen = tuple(conditions[:2])
        null = tuple(conditions[2:])
        if self.levers.guidance:
            velocity = guided_at_once(self.backbone, seen, null, guidance)
        else:
            ways = [lambda z, sigma, c=c: self.backbone(z, sigma, *c) for c in (seen, null)]
            velocity = guided(*ways, guidance)
        z = noise if start_latent is None else noisy(start_latent, noise, strength)
        return euler(velocity, z, sigmas(steps, self.backbone.shift, strength))
