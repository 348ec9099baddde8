"""Pre-training of the tiny SD 3.5: its transformer and its text encoders, text and layout to image.

Its imagery is made in `satjepa.demo.imagery`; its VAE comes before, in `satjepa.demo.pretrain_vae`.
All loops are plain: random crops in, one loss, averaged weights out. They run once, for hours on a
CPU or minutes on a GPU; the weights are shipped in `assets/tiny_sd3`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from satjepa.contracts import SEMANTIC
from satjepa.demo.imagery import Crops, Pool, corpus, layout_cells, make_pool
from satjepa.demo.pretrain_steps import Average, Log, take_step, to_signed

# What a pre-training asks for, its imagery included (notebook 04_backbone).
__all__ = [
    "Crops", "Generator", "Pool", "corpus", "draw", "latents_of", "layout_cells", "make_pool",
    "token_ids", "train_generator",
]  # fmt: skip


@torch.no_grad()
def latents_of(vae: nn.Module, images: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """Posterior means of uint8 images (n,3,H,W): (n,16,h,w).

    Shifted and scaled as the VAE's configuration says.
    """
    modes = [vae.encode(to_signed(part)).latent_dist.mode() for part in images.split(batch)]
    return (torch.cat(modes) - vae.config.shift_factor) * vae.config.scaling_factor


def token_ids(
    text: nn.Module, texts: list[tuple[str, str, str]], length: int
) -> dict[str, torch.Tensor]:
    """Token ids (n, 3, ...) of n triples of captions, for each of the three tokenizers."""
    flat = [caption for triple in texts for caption in triple]
    parts = [text.tokenize(flat[i : i + 4096], length) for i in range(0, len(flat), 4096)]
    ids = {}
    for key in parts[0]:
        whole = torch.cat([part[key] for part in parts])  # (3 n, ...)
        ids[key] = whole.unflatten(0, (-1, 3))
    return ids


class Generator(nn.Module):
    """What is pre-trained together: transformer, text encoders and layout tokens.

    Its forward is the flow-matching loss.

    Args:
        drop_text, drop_layout: share of samples that are given no caption, or no embedding
            (positions are always given), so that the backbone can draw from text alone, from layout
            alone, and from neither.
    """

    def __init__(
        self,
        transformer: nn.Module,
        text: nn.Module,
        layout: nn.Module,
        drop_text: float,
        drop_layout: float,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.text = text
        self.layout = layout
        self.drop_text = drop_text
        self.drop_layout = drop_layout

    def forward(
        self,
        latent: torch.Tensor,
        cells: torch.Tensor,
        ids: dict[str, torch.Tensor],
        empty: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """Mean squared error of the predicted velocity of x_s = (1 - s) x0 + s noise.

        s is logit-normal. latent (B,16,h,w), cells (B,h·w,256), ids: token ids of one caption a
        sample, empty: those of the empty text.
        """
        batch = len(latent)
        mute = torch.rand(batch) < self.drop_text  # (B,)
        blind = torch.rand(batch) < self.drop_layout
        ids = {key: torch.where(mute[:, None], empty[key], own) for key, own in ids.items()}
        hidden, _, pooled = self.text(ids)  # (B,L,joint), (B,P)
        context = torch.cat([self.layout(cells, blind), hidden], 1)  # (B, h·w + L, joint)
        sigma = torch.sigmoid(torch.randn(batch))  # (B,)
        noise = torch.randn_like(latent)
        s = sigma[:, None, None, None]
        noised = (1 - s) * latent + s * noise
        velocity = self.velocity(noised, sigma, context, pooled)
        return F.mse_loss(velocity, noise - latent)

    def velocity(
        self, z: torch.Tensor, sigma: torch.Tensor, context: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        """The transformer's velocity at z (B,16,h,w), noise level sigma (B,): (B,16,h,w)."""
        return self.transformer(z, context, pooled, 1000 * sigma, return_dict=False)[0]


def _optimizers(
    generator: Generator, lr: float, muon_lr: float
) -> tuple[torch.optim.AdamW, torch.optim.Muon]:
    """Muon for the matrices of the transformer's blocks, attention and feed-forward; AdamW else."""
    blocks = generator.transformer.transformer_blocks.named_parameters()
    matrices = [p for name, p in blocks if p.ndim == 2 and ".norm" not in name]
    in_muon = {id(p) for p in matrices}
    rest = [p for p in generator.parameters() if p.requires_grad and id(p) not in in_muon]
    adamw = torch.optim.AdamW(rest, lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    return adamw, torch.optim.Muon(matrices, muon_lr, weight_decay=0.01)


def train_generator(
    generator: Generator,
    latents: torch.Tensor,
    cells: torch.Tensor,
    ids: dict[str, torch.Tensor],
    empty: dict[str, torch.Tensor],
    steps: int,
    batch: int,
    lr: float,
    muon_lr: float,
    log: Log,
    keep: Callable[[int, Generator], None] = lambda step, averaged: None,
) -> Generator:
    """Pre-train on n windows and return the averaged weights.

    Muon and AdamW share the parameters (`_optimizers`), one cycle each. latents (n,16,h,w), cells
    (n,h·w,256), ids: token ids (n,3,...) of the three captions, of which each draw reads one at
    random. `keep` is shown step and averaged weights after every step.
    """
    parameters = [p for p in generator.parameters() if p.requires_grad]
    adamw, muon = _optimizers(generator, lr, muon_lr)
    cycle = partial(
        torch.optim.lr_scheduler.OneCycleLR, total_steps=steps, pct_start=0.05, final_div_factor=100
    )
    schedules = [cycle(adamw, lr), cycle(muon, muon_lr, cycle_momentum=False)]
    average = Average(generator, 0.995)
    for step in range(steps):
        window = torch.randint(len(latents), (batch,))
        kind = torch.randint(3, (batch,))  # which of the three captions
        drawn_ids = {key: whole[window, kind] for key, whole in ids.items()}
        loss = generator(latents[window].float(), cells[window].float(), drawn_ids, empty)
        take_step(loss, parameters, [adamw, muon], schedules)
        average.update()
        log(step + 1, {"loss": loss.item()})
        keep(step + 1, average.module)
    return average.module


@torch.no_grad()
def draw(
    generator: Generator,
    vae: nn.Module,
    pool: Pool,
    latents: torch.Tensor,
    ids: dict[str, torch.Tensor],
    empty: dict[str, torch.Tensor],
    count: int,
    seed: int,
    steps: int = 20,
) -> dict[str, torch.Tensor]:
    """Pictures (count,3,H,W) in [0, 1] of what the generator can do, by what it was given.

    Beside the image and what the VAE leaves of it: with layout and caption, and with either alone.
    """
    from satjepa.models.flow import euler, sigmas

    noise = torch.randn(latents[:count].shape, generator=torch.Generator().manual_seed(seed))
    cells = pool.cells[:count].float()
    semantic = {key: whole[:count, SEMANTIC] for key, whole in ids.items()}
    mute = {key: whole.expand(count, -1) for key, whole in empty.items()}

    def drawn(words: dict[str, torch.Tensor], blind: bool) -> torch.Tensor:
        hidden, _, pooled = generator.text(words)
        layout = generator.layout(cells, torch.full((count,), blind))
        context = torch.cat([layout, hidden], 1)  # (count, h·w + L, joint)
        velocity = partial(generator.velocity, context=context, pooled=pooled)
        return _decoded(vae, euler(velocity, noise, sigmas(steps)))

    return {
        "image": pool.images[:count].float() / 255,
        "through the VAE": _decoded(vae, latents[:count]),
        "layout + caption": drawn(semantic, False),
        "layout": drawn(mute, False),
        "caption": drawn(semantic, True),
    }


def _decoded(vae: nn.Module, latents: torch.Tensor) -> torch.Tensor:
    """Images (n,3,H,W) in [0, 1] of latents (n,16,h,w)."""
    raw = latents / vae.config.scaling_factor + vae.config.shift_factor
    return (vae.decode(raw).sample / 2 + 0.5).clamp(0, 1)
