"""The making of the tiny backbone, step by step, as notebook 04 shows it; each step keeps what the
next one needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from satjepa.demo import pretrain, pretrain_vae
from satjepa.demo.render import read_recipe
from satjepa.paths import readable, root
from satjepa.pipeline.notebook import Printer

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from satjepa.config import Params

# A minute or two on 2 cores: nothing that could be used, but every step of the way.
SMALL = {
    "pretrain.folder": ".work/tiny_sd3",
    "pretrain.regions": 2,
    "pretrain.windows": 256,
    "pretrain.vae_steps": 80,
    "pretrain.polish_steps": 10,
    "pretrain.steps": 60,
}


class Workshop:
    """Imagery -> VAE -> latents -> decoder with LPIPS -> text encoders, transformer, layout.

    params: with the sections `pretrain`, `data`, `captions`, `eval`. The steps are methods, to be
    called in the order they stand in; each that trains returns its curve, one row a printed line.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.p = params.pretrain
        self.patch = params.data.patch
        self.folder = root() / self.p.folder

    def imagery(self) -> tuple[np.ndarray, np.ndarray]:
        """Regions that are in no split: rgb (regions, years, 3, H, W) uint8, embeddings (regions,
        years, 64, H/4, W/4) float16.
        """
        recipe = read_recipe(root() / self.params.data.root / "world.yaml")
        self.rgb, self.embedding = pretrain.corpus(recipe, self.p.regions)
        return self.rgb, self.embedding

    def train_vae(self) -> pd.DataFrame:
        """The VAE on pixels; columns `loss` and `psnr` (dB)."""
        from satjepa.demo.tiny_sd3 import build_vae

        p = self.p
        torch.manual_seed(self.params.seed)
        log = Printer(p.vae_steps)
        crops = pretrain.Crops([self.rgb], [1], self.patch, self.params.seed)
        self.vae = pretrain_vae.train_vae(
            build_vae(), crops, p.vae_steps, p.vae_batch, p.vae_lr, log
        )
        return log.curve()

    def encode(self) -> torch.Tensor:
        """Windows with captions and layout cells, and their latents (n,16,h,w), brought to unit
        deviation in each channel.
        """
        from satjepa.demo.tiny_sd3 import fold_normalisation

        self.pool = pretrain.make_pool(
            self.rgb, self.embedding, self.p.windows, self.patch, self.params.seed
        )
        fold_normalisation(self.vae, pretrain.latents_of(self.vae, self.pool.images[:2048]))
        self.latents = pretrain.latents_of(self.vae, self.pool.images)
        return self.latents

    def polish(self) -> tuple[pd.DataFrame, str]:
        """The decoder alone, with LPIPS; columns `loss`, `psnr`, `lpips`, and where its trunk came
        from.
        """
        from satjepa.metrics.perceptual import build_lpips, find_trunk

        p = self.p
        trunk, source = find_trunk(self.params.eval.lpips_trunk)
        crops = pretrain.Crops([self.rgb], [1], self.patch, self.params.seed + 1)
        log = Printer(p.polish_steps)
        self.vae = pretrain_vae.polish_decoder(
            self.vae, build_lpips(trunk), p.polish_lpips, crops,
            p.polish_steps, p.vae_batch, p.polish_lr, log,
        )  # fmt: skip
        return log.curve(), source

    def train_generator(self) -> pd.DataFrame:
        """Tokenizers from the captions, then text encoders, transformer and layout tokens
        together; column `loss`.
        """
        from satjepa.captions.embeddings import TextEncoders
        from satjepa.demo.text_encoders import build_tiny_text_encoders, train_tokenizers
        from satjepa.demo.tiny_sd3 import Layout, build_transformer, positions_of

        p = self.p
        side = self.latents.shape[-1]
        train_tokenizers((text for texts in self.pool.texts for text in texts), self.folder)
        build_tiny_text_encoders(self.folder, self.params.seed)
        text = TextEncoders.from_pretrained(self.folder).requires_grad_(True).train()
        transformer = build_transformer(p.layers, p.heads, side=side)
        layout = Layout(self.pool.cells.shape[-1], positions_of(transformer, side))
        generator = pretrain.Generator(transformer, text, layout, p.drop_text, p.drop_layout)
        length = self.params.captions.max_length
        self.ids = pretrain.token_ids(text, self.pool.texts, length)
        self.empty = text.tokenize([""], length)
        log = Printer(p.steps)
        self.generator = pretrain.train_generator(
            generator, self.latents, self.pool.cells, self.ids, self.empty,
            p.steps, p.batch, p.lr, p.muon_lr, log,
        )  # fmt: skip
        return log.curve()

    def draw(self, count: int) -> dict[str, torch.Tensor]:
        """Training images, the VAE's view of them, and drawings from noise told more or less of
        them: (count,3,H,W) each.
        """
        return pretrain.draw(
            self.generator, self.vae, self.pool, self.latents, self.ids, self.empty,
            count=count, seed=self.params.seed,
        )  # fmt: skip

    def save(self) -> float:
        """Write the folder in the layout of diffusers, bfloat16; returns its megabytes."""
        from satjepa.demo.tiny_sd3 import save_layout, save_pipeline

        save_pipeline(self.folder, self.vae, self.generator.transformer)
        self.generator.text.to(torch.bfloat16).save_pretrained(self.folder)
        save_layout(self.folder / "layout", self.generator.layout)
        readable(self.folder)
        return sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file()) / 1e6
