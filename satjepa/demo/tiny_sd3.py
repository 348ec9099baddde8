"""A Stable Diffusion 3.5 in miniature: the real diffusers classes at demo size.

Saved in the exact layout of the big one. No weights can be assumed on a fresh machine (SD 3.5 is
gated and 5 GB), so the demo brings a backbone of its own: the same `SD3Transformer2DModel`,
`AutoencoderKL` (8x, 16 latent channels), `FlowMatchEulerDiscreteScheduler`, two CLIPs and a T5,
pre-trained by `satjepa.demo.pretrain` on imagery of the demo world. `satjepa.models.backbone` loads
either by the same lines.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from satjepa.paths import readable, replaced, write_text

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SD3Transformer2DModel

LATENT_CHANNELS = 16
JOINT_DIM = 128  # width of T5's hidden states, 4096 in SD 3.5
POOLED_DIM = 128  # both CLIPs' pooled vectors, 2048 in SD 3.5


def build_vae(
    channels: tuple[int, ...] = (16, 32, 64, 128), sample_size: int = 64
) -> AutoencoderKL:
    """An `AutoencoderKL` with SD 3's interface: 8x smaller, 16 latent channels.

    channels: of its levels, from full size down; sample_size: pixels a side. As in SD 3 there are
    no quantisation convolutions.
    """
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=sample_size,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def build_transformer(
    layers: int = 5, heads: int = 5, head_dim: int = 32, side: int = 8
) -> SD3Transformer2DModel:
    """An `SD3Transformer2DModel` (MM-DiT) on `side` x `side` latents, a token per latent pixel.

    The joint attention of both streams starts from the same queries and keys, so that equal
    positions attend to each other from the first step: a layout token in the context then finds its
    place in the image without having to learn it from nothing.
    """
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(
        sample_size=side,
        patch_size=1,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=layers,
        attention_head_dim=head_dim,
        num_attention_heads=heads,
        joint_attention_dim=JOINT_DIM,
        caption_projection_dim=heads * head_dim,
        pooled_projection_dim=POOLED_DIM,
        pos_embed_max_size=4 * side,
        qk_norm="rms_norm",
    )
    with torch.no_grad():
        nn.init.eye_(model.context_embedder.weight)
        nn.init.zeros_(model.context_embedder.bias)
        for block in model.transformer_blocks:
            attention = block.attn  # image stream: to_q, to_k; text stream: add_q_proj, add_k_proj
            others = (attention.to_k, attention.add_k_proj, attention.add_q_proj)
            nn.init.zeros_(attention.to_q.bias)
            for linear in others:
                linear.weight.copy_(attention.to_q.weight)
                nn.init.zeros_(linear.bias)
    return model


class Layout(nn.Module):
    """Layout tokens of the pre-training: what lies where, in the width of the text stream.

    One token per latent pixel, token(n) = W_e · embedding(n) + W_p · position(n), with embedding(n)
    the AlphaEarth vectors of the four quarters of patch n and position(n) the transformer's own
    fixed sin-cos table. Saved beside the backbone, it is the warm start of the adapter's token
    stream.
    """

    def __init__(self, embedding_dim: int, positions: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("positions", positions.clone())  # (N, width)
        self.embedding = nn.Linear(embedding_dim, JOINT_DIM)
        self.position = nn.Linear(positions.shape[1], JOINT_DIM)
        nn.init.eye_(self.position.weight)
        nn.init.zeros_(self.position.bias)

    def forward(self, embedding: torch.Tensor, drop: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N, embedding_dim) -> (B, N, JOINT_DIM).

        Where `drop` (B,) bool is set, a token knows its position alone.
        """
        content = self.embedding(embedding)  # (B, N, joint)
        if drop is not None:
            content = content * ~drop[:, None, None]
        return content + self.position(self.positions)


def positions_of(transformer: nn.Module, side: int) -> torch.Tensor:
    """The transformer's own fixed position table for a `side` x `side` latent, (side², width)."""
    return transformer.pos_embed.cropped_pos_embed(side, side)[0].detach().float()


def fold_normalisation(vae: AutoencoderKL, latents: torch.Tensor) -> None:
    """Rescale the latent channels to unit deviation inside the VAE's own weights.

    What it decodes stays the same. SD 3 has one shift and one scale for all channels; folding the
    scale of each channel into the convolutions lets that of all be 1.

    Args:
        latents: (n, 16, h, w) posterior means of training images.
    """
    mean = latents.mean((0, 2, 3))  # (16,)
    std = latents.std((0, 2, 3))
    into = vae.decoder.conv_in
    out = vae.encoder.conv_out  # twice 16 channels: means, then log variances
    with torch.no_grad():
        # Only the scale: the decoder pads the latent with zeros, and a folded shift would change
        # what they mean.
        out.weight[:LATENT_CHANNELS] /= std[:, None, None, None]
        out.bias[:LATENT_CHANNELS] /= std
        out.bias[LATENT_CHANNELS:] -= 2 * std.log()
        into.weight *= std[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0, shift_factor=float((mean / std).mean()))


def save_pipeline(
    folder: Path,
    vae: AutoencoderKL,
    transformer: SD3Transformer2DModel,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write VAE, transformer, scheduler and `model_index.json` to a folder.

    The layout is that of `stabilityai/stable-diffusion-3.5-medium`.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    vae.to(dtype).save_pretrained(folder / "vae")
    transformer.to(dtype).save_pretrained(folder / "transformer")
    FlowMatchEulerDiscreteScheduler(shift=1.0).save_pretrained(folder / "scheduler")
    readable(folder)
    index = {
        "_class_name": "StableDiffusion3Pipeline",
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "text_encoder_3": ["transformers", "T5EncoderModel"],
        "tokenizer_3": ["transformers", "T5TokenizerFast"],
    }
    write_text(folder / "model_index.json", json.dumps(index, indent=2) + "\n")


def save_layout(folder: Path, layout: nn.Module) -> None:
    """Write the layout tokens' weights, with which the adapter's token stream starts.

    bfloat16; the position table float32.
    """
    from safetensors.torch import save_file

    state = {}
    for name, tensor in layout.state_dict().items():
        if name != "positions":
            tensor = tensor.to(torch.bfloat16)
        state[name] = tensor.contiguous()
    with replaced(folder / "layout.safetensors") as part:
        save_file(state, part)
