"""PublishedSatJepa: the released Sat-JEPA-Diff, assembled in view, so that its checkpoint loads and
can be measured.

    RGB(t) -> encoder -> predictor -> tokens(t+1);
    semantic(t) + tokens(t+1) -> forecaster -> semantic(t+1)
    tokens, captions -> adapter -> (context, pooled);
    RGB(t) + noise -> one step of SD 3 + LoRA -> VAE -> RGB(t+1)

Encoder, predictor, losses and flow are those of `satjepa.models.satjepa`; adapters and forecaster
are its own.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from satjepa.contracts import CAPTION_KINDS, SEMANTIC
from satjepa.metrics.pixels import ssim
from satjepa.models.backbone import Backbone
from satjepa.models.caption_forecaster import Caption
from satjepa.models.drops import Drops
from satjepa.models.flow import from_image, noisy, velocity_target
from satjepa.models.jepa import (
    Encoder,
    Predictor,
    ProjectionHead,
    gather_tokens,
    patch_mean,
    start_as_published,
)
from satjepa.models.joint import Batch, Conditions, JointModel
from satjepa.models.layers import layer_norm0
from satjepa.models.losses import Loss, caption_loss, flow_loss, ijepa_loss, joint_loss
from satjepa.models.published import STRENGTH
from satjepa.models.published.adapter import CaptionAdapter, Captions
from satjepa.models.published.coarse import CoarseAdapter, shrink
from satjepa.models.published.forecaster import PublishedForecaster
from satjepa.models.published.masks import BLOCKS, Blocks, repeated, sample_masks

SSIM_WEIGHT = 0.1
Masks = tuple[Tensor, Tensor]
"""context (c,B,K), target (t,B,M): numbers of the patches seen, and of those asked for"""


class PublishedSatJepa(JointModel):
    """Forecast of next year's image, as published: see FINDINGS for what of it is not as its model
    card says.

    params: an object with the sections ``data``, ``model``, ``loss``, ``train`` and ``sample`` of
    params.yaml. backbone, empty: as `SatJepa` has them; of the empty text only the widths are used.
    blocks: of the mask sampler.

    ``model.use_captions`` true: the caption adapter and forecaster; false: the coarse-RGB adapter
    of the main branch, or, without ``model.coarse_rgb``, the caption adapter that hears nothing.
    ``model.adapter.layers`` means nothing. ValueError for what the published system has not: no
    I-JEPA, or captions and coarse RGB at once.

    Kept: adapter positions by sequence index, a block of tokens in training and all of them in a
    forecast, no past years, captions of t+1 with the pooled vector of t, padding read as words,
    pixels to the encoder in [0, 1], an SSIM term without gradient. Ours: what is invalid weighs
    nothing in the I-JEPA loss, as everywhere in this project.
    """

    def __init__(
        self, params: Any, backbone: Backbone, empty: Caption, blocks: Blocks = BLOCKS
    ) -> None:
        super().__init__(params)
        m = params.model
        side = params.data.patch
        if m.variant != "published":
            raise ValueError(f"model.variant is {m.variant!r}: this is the variant 'published'")
        if not m.use_jepa or (m.use_captions and m.coarse_rgb):
            raise ValueError(
                "published: model.use_jepa, and one of model.use_captions and model.coarse_rgb"
            )
        self.blocks = blocks
        self.grid = side // m.encoder.patch
        dim = m.encoder.dim
        widths = {"joint_dim": backbone.joint_dim, "pooled_dim": backbone.pooled_dim}
        widths["dim"] = m.adapter.dim
        text_dim = empty["hidden"].shape[-1]
        text_pooled_dim = empty["pooled"].shape[-1]
        self.encoder = Encoder(side, m.encoder.patch, dim, m.encoder.depth, m.encoder.heads)
        self.predictor = Predictor(
            self.grid, dim, m.predictor.dim, m.predictor.depth, m.predictor.heads
        )
        start_as_published(self.encoder, self.predictor)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.projection = ProjectionHead(dim)
        heads = {"temporal_heads": m.adapter.heads}
        if m.coarse_rgb:
            self.adapter = CoarseAdapter(dim, **widths, coarse=m.coarse_rgb, **heads)
        else:
            heads["fusion_heads"] = m.adapter.heads
            self.adapter = CaptionAdapter(dim, text_dim, text_pooled_dim, **widths, **heads)
        if m.use_captions:
            f = m.forecaster
            self.forecaster = PublishedForecaster(dim, text_dim, f.dim, f.heads, f.layers)
        self.register_buffer(
            "mask_calls", torch.zeros((), dtype=torch.int64)
        )  # saved: a resumed run goes on with it
        self.backbone = backbone

    # ------------------------------------------------------------------ training

    @property
    def has_idle_weights(self) -> bool:
        """The temporal attention of its adapters: without past years its keys are one, and it says
        nothing new.
        """
        return True

    def forward(self, batch: Batch, noise: Tensor, sigma: Tensor, drops: Drops) -> Loss:
        """Joint loss of a batch under new masks; noise (B,C,h,w) -> (loss, detached parts).

        sigma (B,) is logit-normal as `satjepa.training.loop` draws it and is used as the uniform
        number of the same rank ("flow.sigma"). Published caption dropout is one draw for each
        caption and the whole batch: here that of the first three samples in ``drops.text``. There
        is no token dropout.
        """
        masks = sample_masks(int(self.mask_calls), len(noise), self.grid, self.blocks)
        self.mask_calls += 1
        dropped = drops.text.tolist()
        heard = [name for i, name in enumerate(CAPTION_KINDS) if not dropped[i % len(dropped)]]
        return self.loss(
            batch, noise, self.uniform(sigma), tuple(mask.to(noise.device) for mask in masks), heard
        )

    def loss(
        self,
        batch: Batch,
        noise: Tensor,
        sigma: Tensor,
        masks: Masks,
        heard: Collection[str] = CAPTION_KINDS,
    ) -> Loss:
        """Joint loss for given masks, noise levels (B,) and captions ``heard`` by the adapter ->
        (loss, parts).

        Several masks make t*c*B rows of tokens, mask-major, and everything else is repeated in that
        order. (The published code repeats some of it sample-major, some not at all, and fails.)
        """
        weights = self.params.loss
        seen, asked = masks
        times = len(seen) * len(asked)
        tokens = self.predictor(self.encoder(batch["rgb_t"], seen), seen, asked)
        tokens = layer_norm0(tokens)  # (R,M,D), R = t*c*B
        rows = {name: repeated(value, times) for name, value in batch.items()}
        captions = self.foresee(rows, tokens)  # semantic: hidden of t+1 (R,L,T), pooled of t (R,P)
        context, pooled = self.adapt(rows, tokens, captions, heard)  # (R,M,joint), (R,P)
        latent = self.latent(batch)  # (B,C,h,w)
        x0, noise, level = (repeated(x, times) for x in (latent, noise, sigma))
        velocity = self.backbone(noisy(x0, noise, level), level, context, pooled)  # (R,C,h,w)
        error = velocity - velocity_target(x0, noise)  # (R,C,h,w)

        losses = {
            "flow": (weights.sd, self.flow_loss(error, sigma, latent, batch["rgb_tp1"])),
            "ijepa": (weights.ijepa, self.ijepa_loss(batch, tokens, masks)),
        }
        if captions:
            semantic_tp1 = rows["text_tp1"]["hidden"][:, SEMANTIC]  # (R,L,T)
            loss = caption_loss(captions["semantic"][0], semantic_tp1)
            losses["caption"] = (weights.caption, loss)
        return joint_loss(losses)

    def uniform(self, sigma: Tensor) -> Tensor:
        """Logit-normal noise levels as uniform ones of the same rank: Phi((logit sigma - mean) /
        std), (B,).
        """
        how = self.params.train
        return torch.special.ndtr((sigma.logit() - how.timestep_mean) / how.timestep_std)

    def predict(self, rgb_t: Tensor) -> tuple[Tensor, Tensor]:
        """RGB(t) (B,3,H,W) in [0, 1] -> all layer-normed tokens of t+1 (B,N,D) and their AlphaEarth
        vectors.
        """
        tokens = layer_norm0(self.predictor(self.encoder(rgb_t)))  # (B,N,D)
        return tokens, self.projection(tokens)

    def foresee(self, batch: Batch, tokens: Tensor) -> Captions:
        """Captions of t, the hidden states of the semantic one brought to t+1; {} without captions.

        No gradient flows to the tokens. The pooled vector stays that of t.
        """
        if not self.params.model.use_captions:
            return {}
        text = batch["text_t"]  # (B,3,L,T), (B,3,P)
        captions = {}
        for i, name in enumerate(CAPTION_KINDS):
            captions[name] = (text["hidden"][:, i], text["pooled"][:, i])
        hidden, pooled = captions["semantic"]
        return captions | {"semantic": (self.forecaster(tokens.detach(), hidden), pooled)}

    def adapt(
        self, batch: Batch, tokens: Tensor, captions: Captions,
        heard: Collection[str] = CAPTION_KINDS,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Tokens and the captions heard, or coarse pixels of t -> context (B,M,joint), pooled
        (B,P).
        """
        if side := self.params.model.coarse_rgb:
            return self.adapter(tokens, shrink(batch["rgb_t"], side))
        return self.adapter(tokens, {name: captions[name] for name in captions if name in heard})

    def flow_loss(self, error: Tensor, sigma: Tensor, latent: Tensor, rgb_tp1: Tensor) -> Loss:
        """Flow matching + 0.1 (1 - SSIM of RGB(t+1) and its own reconstruction by the VAE), which
        has no gradient.

        error (R,C,h,w) of the velocity at noise levels "sigma" (B,); "each" (B,) is its mean over
        the masks.
        """
        loss, parts = flow_loss(error, torch.zeros_like(error))
        lost = 1 - ssim(self.backbone.decode(latent), rgb_tp1).mean().to(loss.dtype)
        each = parts["each"].view(-1, len(sigma)).mean(0)  # (B,)
        return loss + SSIM_WEIGHT * lost, parts | {"each": each, "ssim": lost, "sigma": sigma}

    def ijepa_loss(self, batch: Batch, tokens: Tensor, masks: Masks) -> Loss:
        """Tokens asked for against AlphaEarth(t+1) and the target encoder's features of RGB(t+1),
        where valid.
        """
        patch = self.params.model.encoder.patch
        valid = batch["valid_tp1"]
        seen, asked = masks
        # (B,N,64), (B,N)
        means, weight = patch_mean(batch["emb_tp1"], patch, batch["emb_valid"] & valid)
        _, weight_feat = patch_mean(valid.to(tokens.dtype), patch)  # (B,N)
        with torch.no_grad():
            features = self.target_encoder(batch["rgb_tp1"])  # (B,N,D)
        known = (layer_norm0(means), features, weight[..., None], weight_feat[..., None])
        vectors, features, weight, weight_feat = (
            gather_tokens(x, asked, len(seen)) for x in known
        )  # (R,M,...)
        weighed = (weight[..., 0], weight_feat[..., 0], self.params.loss)
        return ijepa_loss(
            self.projection(tokens), vectors, tokens, features, *weighed, spatial="scalar"
        )

    # ------------------------------------------------------------------ forecasting

    @property
    def strength(self) -> float:
        """0.35: a published forecast starts from the image of year t; another value below 1 is
        taken as it is.
        """
        return STRENGTH if self.params.sample.strength == 1 else self.params.sample.strength

    @property
    def steps(self) -> int:
        """1, whatever `sample.steps` is for ours."""
        return 1

    @property
    def guidance(self) -> float:
        """1: the published system has no guidance, whatever `sample.guidance` is for ours."""
        return 1.0

    @torch.no_grad()
    def condition(self, batch: Batch) -> Conditions:
        """What the adapter makes of RGB(t) and its captions, all tokens at once; there is no null
        to be guided from.
        """
        tokens, _ = self.predict(batch["rgb_t"])
        seen = self.adapt(batch, tokens, self.foresee(batch, tokens))
        return Conditions(*seen, *seen)

    @torch.no_grad()
    def sample(
        self, conditions: Conditions, noise: Tensor, steps: int, guidance: float = 1.0,
        start_latent: Tensor | None = None, strength: float = STRENGTH,
    ) -> Tensor:  # fmt: skip
        """One step from (1 - strength) start_latent + strength noise to the latent of t+1, whatever
        ``steps`` says.

        noise, start_latent (B,C,h,w). ValueError without a start_latent or with guidance: neither
        exists there.
        """
        if start_latent is None or guidance != 1:
            raise ValueError(
                "the published sampler starts from the image of year t, and has no guidance"
            )
        return self.roll(conditions, noise, 1, start_latent, strength)

    @torch.no_grad()
    def roll(
        self, conditions: Conditions, noise: Tensor, steps: int, start_latent: Tensor,
        strength: float = STRENGTH, anchor: Tensor | None = None, share: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """The sampler of the published rollout over several years: ``steps`` steps, then the anchor
        (`from_image`).
        """

        def velocity(z: Tensor, sigma: Tensor) -> Tensor:
            return self.backbone(z, sigma, conditions.context, conditions.pooled)

        return from_image(velocity, start_latent, noise, strength, steps, anchor, share)
