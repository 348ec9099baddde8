"""Transformer and VAE of Stable Diffusion 3.5 Medium, by their configurations: for benchmarks."""

from diffusers import AutoencoderKL, SD3Transformer2DModel

WIDTH = 1536  # the first 13 blocks have a second attention
BLOCKS = 24
DUAL = 13
TEXT = 4096
POOLED = 2048


def transformer() -> SD3Transformer2DModel:
    """A new one; call it under `torch.device("meta")` and it costs nothing."""
    return SD3Transformer2DModel(
        sample_size=128, patch_size=2, in_channels=16, out_channels=16, num_layers=BLOCKS,
        attention_head_dim=64, num_attention_heads=24, joint_attention_dim=TEXT,
        caption_projection_dim=WIDTH, pooled_projection_dim=POOLED, pos_embed_max_size=384,
        dual_attention_layers=tuple(range(DUAL)), qk_norm="rms_norm",
    )  # fmt: skip


def autoencoder() -> AutoencoderKL:
    """The VAE of Stable Diffusion 3.5, with random weights."""
    return AutoencoderKL(
        latent_channels=16, block_out_channels=(128, 256, 512, 512),
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305,
        shift_factor=0.0609,
    )  # fmt: skip
