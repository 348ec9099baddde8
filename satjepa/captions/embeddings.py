"""Captions to vectors: tokenizers and the text encoders of Stable Diffusion 3.5, two CLIPs and T5
(`satjepa.captions.store` keeps what they give).

A text becomes `hidden` (L, D), T5's states of its L tokens without padding, and `pooled` (P,), both
CLIPs' projected sentence vectors joined. The published code pads to 77 tokens, lets T5 attend to
the padding and keeps it; here T5 gets its mask and padding is zero or absent, so that an embedding
depends on its text alone.

The tiny encoders of the demo and those of stabilityai/stable-diffusion-3.5-medium are loaded by the
same lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from satjepa.contracts import Captions
from satjepa.paths import readable

CLIP_LENGTH = 77
T5_TOKENS = 77  # of the published model card
Embed = Callable[[Sequence[Captions]], dict[str, Tensor]]  # B captions -> text_t of a `Batch`


class TextEncodersNotFound(OSError):
    """The text encoders or their tokenizers could not be read; the message says what is missing and
    how to get it.
    """


class TextEncoders(nn.Module):
    """CLIP x2 and T5 with their tokenizers.

    `encode` and `embed_batch` keep no gradient; `forward(tokenize(texts))` does, for the
    pre-training of the tiny ones.
    """

    def __init__(
        self, clip_1: nn.Module, clip_2: nn.Module, t5: nn.Module, tokenizers: list
    ) -> None:
        super().__init__()
        self.clip_1 = clip_1
        self.clip_2 = clip_2
        self.t5 = t5
        self.tokenizers = tokenizers

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        local_files_only: bool = False,
    ) -> TextEncoders:
        """Frozen encoders, in evaluation mode.

        `path` is a folder in diffusers layout or a hub repository such as
        stabilityai/stable-diffusion-3.5-medium, and `revision` its commit. TextEncodersNotFound:
        something is missing, or its licence has not been accepted.
        """
        from transformers import AutoTokenizer, CLIPTextModelWithProjection, T5EncoderModel

        kinds = {
            "": CLIPTextModelWithProjection,
            "_2": CLIPTextModelWithProjection,
            "_3": T5EncoderModel,
        }
        where = {"revision": revision, "local_files_only": local_files_only}
        try:
            tokenizers = [
                AutoTokenizer.from_pretrained(path, subfolder=f"tokenizer{n}", **where)
                for n in kinds
            ]
            models = [
                kind.from_pretrained(path, subfolder=f"text_encoder{n}", dtype=dtype, **where)
                for n, kind in kinds.items()
            ]
        except (OSError, ValueError) as error:
            raise TextEncodersNotFound(
                f"no text encoders in {path!s}: it needs tokenizer, tokenizer_2, tokenizer_3, "
                "text_encoder, "
                "text_encoder_2 and text_encoder_3. Set backbone.path to a folder that holds them "
                "(assets/tiny_sd3 is "
                "the demo's), or accept the licence at "
                "https://huggingface.co/stabilityai/stable-diffusion-3.5-medium, "
                "run `hf auth login` and try again online. "
                f"({str(error).splitlines()[0]})"
            ) from error
        return cls(*models, tokenizers).requires_grad_(False).eval().to(device)

    @property
    def hidden_dim(self) -> int:
        """D, the width of `hidden` (4096 in SD 3.5, 128 in the tiny one)."""
        return self.t5.config.d_model

    @property
    def pooled_dim(self) -> int:
        """P, the width of `pooled` (2048 in SD 3.5, 128 in the tiny one)."""
        return self.clip_1.config.projection_dim + self.clip_2.config.projection_dim

    def save_pretrained(self, folder: str | Path) -> None:
        """Write encoders and tokenizers in diffusers layout, in the dtype they have."""
        models = (self.clip_1, self.clip_2, self.t5)
        for suffix, model, tokenizer in zip(("", "_2", "_3"), models, self.tokenizers, strict=True):
            model.save_pretrained(Path(folder) / f"text_encoder{suffix}")
            tokenizer.save_pretrained(Path(folder) / f"tokenizer{suffix}")
        readable(folder)

    def lengths(self, texts: list[str]) -> list[int]:
        """Tokens of T5 that each text has, uncut, its end token among them."""
        return [len(ids) for ids in self.tokenizers[2](texts, verbose=False).input_ids]

    def spell(self, ids: Tensor) -> list[str]:
        """Texts of T5's tokens (n,L), without its special ones."""
        return self.tokenizers[2].batch_decode(ids, skip_special_tokens=True)

    def tokenize(
        self, texts: list[str], max_length: int, pad: bool = True
    ) -> dict[str, torch.Tensor]:
        """Token ids on the CPU: clip_1, clip_2 (B,77), t5 (B,L) and its mask (B,L) bool.

        L is max_length, or with pad=False that of the longest text. Longer texts are cut, keeping
        their end token.
        """
        settings = {"truncation": True, "return_tensors": "pt"}
        clip_1, clip_2 = (
            tokenizer(texts, padding="max_length", max_length=CLIP_LENGTH, **settings).input_ids
            for tokenizer in self.tokenizers[:2]
        )
        t5 = self.tokenizers[2](
            texts, padding="max_length" if pad else "longest", max_length=max_length, **settings
        )
        return {
            "clip_1": clip_1,
            "clip_2": clip_2,
            "t5": t5.input_ids,
            "mask": t5.attention_mask.bool(),
        }

    def forward(
        self, tokens: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token ids of `tokenize` to hidden (B,L,D), zero on padding, its mask (B,L) bool and
        pooled (B,P).
        """
        tokens = {k: v.to(self.t5.device) for k, v in tokens.items()}
        mask = tokens["mask"]  # (B, L)
        hidden = self.t5(input_ids=tokens["t5"], attention_mask=mask).last_hidden_state  # (B, L, D)
        pooled = [
            m(input_ids=tokens[n]).text_embeds
            for n, m in (("clip_1", self.clip_1), ("clip_2", self.clip_2))
        ]
        return hidden * mask[..., None], mask, torch.cat(pooled, -1)  # pooled (B, P)

    @torch.no_grad()
    def embed_batch(
        self, texts: list[str], max_length: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Texts to hidden (B,max_length,D), zero on padding, mask (B,max_length) bool and pooled
        (B,P).
        """
        return self(self.tokenize(texts, max_length))

    @torch.no_grad()
    def encode(
        self, texts: list[str], max_length: int, batch: int = 64
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(hidden (L,D), pooled (P,)) of each text, L its own number of tokens."""
        out = []
        for start in range(0, len(texts), batch):
            rows = self(self.tokenize(texts[start : start + batch], max_length, pad=False))
            out += [(hidden[mask], pooled) for hidden, mask, pooled in zip(*rows, strict=True)]
        return out

    def fingerprint(self) -> str:
        """SHA-256 over names, shapes and first values of the weights: tells encoders apart, reads
        no gigabytes.
        """
        digest = hashlib.sha256()
        for name, weight in self.state_dict().items():
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(weight.flatten()[:256].float().cpu().numpy().tobytes())
        return digest.hexdigest()


def caption_embedder(encoders: Any, max_length: int) -> Embed:
    """B captions -> {"hidden" (B,3,L,D), "mask" (B,3,L), "pooled" (B,3,P)}, rounded as in a
    `TextStore`.
    """

    def embed(captions: Sequence[Captions]) -> dict[str, Tensor]:
        hidden, mask, pooled = encoders.embed_batch(
            [text for three in captions for text in three], max_length
        )
        kept = {
            "hidden": hidden.bfloat16().float(),
            "mask": mask,
            "pooled": pooled.bfloat16().float(),
        }
        return {name: value.unflatten(0, (len(captions), -1)) for name, value in kept.items()}

    return embed


def padded_embedder(encoders: TextEncoders, max_length: int) -> Embed:
    """As `caption_embedder`, of texts as the published model reads them: `encode_caption_batch`."""

    def embed(captions: Sequence[Captions]) -> dict[str, Tensor]:
        texts = [text for three in captions for text in three]
        hidden, pooled = encode_caption_batch(texts, encoders, max_length)
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool)
        kept = {"hidden": hidden.float(), "mask": mask, "pooled": pooled.float()}
        return {name: value.unflatten(0, (len(captions), -1)) for name, value in kept.items()}

    return embed


@torch.no_grad()
def encode_caption_batch(
    captions: Sequence[str], encoders: TextEncoders, max_length: int = T5_TOKENS
) -> tuple[Tensor, Tensor]:
    """B texts as the published model reads them: T5 states (B, max_length, D) and both CLIPs'
    pooled vectors (B, P).

    Cut or padded to max_length T5 tokens; padding is attended and kept, as the published code has
    it.
    """
    tokens = encoders.tokenize(list(captions), max_length)
    hidden, _, pooled = encoders(tokens | {"mask": torch.ones_like(tokens["mask"])})
    return hidden, pooled
