"""The frozen image generator: SD 3.5 Medium or the tiny one, loaded by the same lines, with LoRA on
its attention.

latent = backbone.encode(rgb)                               RGB [0, 1] -> normalised latent
v      = backbone(latent, sigma, context, pooled)           velocity of flow matching
rgb    = backbone.decode(latent)                            and back to [0, 1]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from satjepa.models.compiled import Choice, Compiled, is_on
from satjepa.models.folding import folded

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SD3Transformer2DModel


class BackboneError(RuntimeError):
    """The backbone could not be loaded; the message says what is missing and how to get it."""


def load_part(
    cls: type, path: str, part: str, revision: str | None = None, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """`cls.from_pretrained(path, subfolder=part)` in `dtype`; `BackboneError` in one sentence where
    that fails.
    """
    try:
        return cls.from_pretrained(path, subfolder=part, revision=revision, torch_dtype=dtype)
    except (OSError, ValueError) as error:
        if Path(path).is_dir():
            advice = (
                f"the folder has no usable `{part}/`: it must be in diffusers layout, as "
                "`assets/tiny_sd3`"
            )
        else:
            advice = (
                "it is neither a folder nor to be had from the model hub: for Stable Diffusion 3.5 "
                "Medium accept its"
                " licence there, log in (`hf auth login`) and be online once, or set backbone.path "
                "in params.yaml to a"
                " local copy; `assets/tiny_sd3` needs neither"
            )
        raise BackboneError(f"cannot load `{part}` of backbone {path!r}: {advice}") from error


class Backbone(nn.Module):
    """Frozen MM-DiT and VAE, with LoRA as the only thing that trains.

    Args:
        transformer: SD3's velocity network.
        vae: its autoencoder; latents are (z - shift) * scale of the VAE's configuration.
        shift: time shift of the sampler (the scheduler's configuration; 3.0 for SD 3.5, 1.0 for the
            tiny one).
        source: path or hub id, recorded in checkpoints.
    """

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        vae: AutoencoderKL,
        shift: float = 1.0,
        source: str = "",
    ) -> None:
        super().__init__()
        self.transformer = transformer.requires_grad_(False)
        self.vae = vae.requires_grad_(False).eval()
        self.shift = shift
        self.source = source
        self._compiled: dict[str, Compiled] = {}  # for "sampling" and "training", kept for reuse
        self._call: Callable | None = None  # what stands for the transformer at the moment

    @classmethod
    def from_pretrained(
        cls, path: str | Path, revision: str | None = None, dtype: torch.dtype = torch.float32
    ) -> Backbone:
        """Load from a folder in diffusers layout (relative to the repository root or absolute) or
        from the model hub.

        dtype: of the transformer's frozen weights; bfloat16 halves them. The VAE stays in float32:
        it is small, and what it loses is lost in every forecast.

        Raises:
            BackboneError: nothing usable there; says how to get it.
        """
        from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

        path = str(path)
        parts = [
            load_part(c, path, name, revision, kind)
            for c, name, kind in (
                (SD3Transformer2DModel, "transformer", dtype),
                (AutoencoderKL, "vae", torch.float32),
            )
        ]
        try:
            scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
                path, subfolder="scheduler", revision=revision
            )
        except OSError as error:
            raise BackboneError(f"cannot load `scheduler` of backbone {path!r}") from error
        return cls(*parts, shift=float(scheduler.config.shift), source=path)

    def add_lora(self, rank: int, alpha: float, targets: Sequence[str]) -> Backbone:
        """Put LoRA (W + alpha/rank · B A, B = 0 at the start) on the named layers of every block;
        returns self.

        What trains is float32, whatever the frozen weights are.
        """
        from peft import LoraConfig

        self.transformer.add_adapter(
            LoraConfig(
                r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights=True
            )
        )
        for p in self.transformer.parameters():
            if p.requires_grad:
                p.data = p.data.float()
        return self

    @contextmanager
    def sampling(self, choice: Choice = "off", fold: bool = True) -> Iterator[None]:
        """Inside, the transformer is as quick as it gets without gradients: LoRA folded into its
        weights, and compiled where `choice` says so, as a whole, with CUDA graphs on CUDA.
        """
        with folded(self.transformer) if fold else nullcontext():
            if not is_on(choice, self.vae.device):
                yield
                return
            if "sampling" not in self._compiled:
                function = self.transformer.forward
                named = {"title": "the transformer (sampler)", "mode": "reduce-overhead"}
                self._compiled["sampling"] = Compiled(function, **named)
            with self._standing_in(self._compiled["sampling"]):
                yield

    @contextmanager
    def training_blocks(
        self, choice: Choice = "off", checkpointing: bool = False, autocast: bool = False
    ) -> Iterator[None]:
        """Inside, the transformer's blocks are compiled where `choice` says so, and recompute what
        their gradients need instead of keeping it if `checkpointing`.

        autocast: the weights of LoRA are cast to bfloat16 by autocast, so that their input is not
        cast to float32 and back, which changes nothing but the time.
        """
        transformer = self.transformer
        for module in transformer.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = not autocast
        if checkpointing:
            transformer.enable_gradient_checkpointing(_recomputed)
        try:
            if not is_on(choice, self.vae.device):
                yield
                return
            if "training" not in self._compiled:
                blocks = list(transformer.transformer_blocks)
                named = {"title": "the transformer's blocks (training)", "blocks": blocks}
                self._compiled["training"] = Compiled(transformer.forward, **named)
            try:
                with self._standing_in(self._compiled["training"]):
                    yield
            finally:
                self._compiled["training"].stop()
        finally:
            for module in transformer.modules():
                if hasattr(module, "cast_input_dtype_enabled"):
                    module.cast_input_dtype_enabled = True
            if checkpointing:
                transformer.disable_gradient_checkpointing()

    @contextmanager
    def _standing_in(self, compiled: Compiled) -> Iterator[None]:
        self._call = compiled
        try:
            yield
        finally:
            self._call = None

    @property
    def dtype(self) -> torch.dtype:
        """Of the transformer's frozen weights, in which it is asked."""
        return self.transformer.pos_embed.proj.weight.dtype

    @property
    def joint_dim(self) -> int:
        """Width of the context tokens (T5's hidden states)."""
        return self.transformer.config.joint_attention_dim

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled vector (both CLIPs)."""
        return self.transformer.config.pooled_projection_dim

    @property
    def latent_channels(self) -> int:
        """Channels of the latent, 16."""
        return self.vae.config.latent_channels

    def latent_size(self, size: int) -> int:
        """Side of the latent of a `size` x `size` image."""
        return size // 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode(self, rgb: torch.Tensor) -> torch.Tensor:
        """RGB (B, 3, H, W) in [0, 1] -> latent (B, 16, H/8, W/8): the posterior's mean, scaled."""
        latent = self.vae.encode(2 * rgb.to(self.vae.device) - 1).latent_dist.mode()
        return (latent - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Normalised latent (B, 16, h, w) -> RGB (B, 3, 8h, 8w) in [0, 1], float32.

        Convolutions have channels last, which suits CPU and GPU. On the CPU in float32; on CUDA in
        bfloat16 (sums and norms in float32): `benchmarks/full_size.py` prints how far that is from
        float32.
        """
        device = self.vae.device
        latent = latent.to(device) / self.vae.config.scaling_factor + self.vae.config.shift_factor
        on_cuda = device.type == "cuda"
        self.vae.decoder.to(memory_format=torch.channels_last)
        latent = latent.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=on_cuda):
            image = self.vae.decode(latent).sample.float()
        return (image / 2 + 0.5).clamp(0, 1)

    def forward(
        self, latent: torch.Tensor, sigma: torch.Tensor, context: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        """Velocity noise - x0 at noise level sigma.

        Args:
            latent: (B, 16, h, w) = (1 - sigma) x0 + sigma noise.
            sigma: (B,) in [0, 1]; the network is told the timestep 1000 sigma.
            context: (B, T, joint_dim) tokens of what to draw.
            pooled: (B, pooled_dim).
        """
        transformer = self.transformer if self._call is None else self._call
        inputs = [x.to(self.dtype) for x in (latent, context, pooled)]
        return transformer(*inputs, 1000 * sigma, return_dict=False)[0].to(latent.dtype)


def _recomputed(block: nn.Module, *args: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """A block whose activations are computed again for its gradients; nothing in it is random."""
    from torch.utils.checkpoint import checkpoint

    return checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False)
