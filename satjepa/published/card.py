"""The calls of the published model card: load a checkpoint, forecast one frame, encode captions.

    model = load_model("s2_future_jepa-best.pth.tar", "cuda")
    rgb_t = load_and_resize_tif("s2_rgb_Place_2023_10km.tif")
    rgb_tp1 = predict_next_frame(rgb_t, model, num_diffusion_steps=20, noise_strength=0.35)

Where the card and the published code differ, these do what the card says: the number of steps is
honoured (the code takes one, whatever it is told). `as_published=True` does what the code does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from satjepa.assemble import embedder
from satjepa.captions.embeddings import encode_caption_batch
from satjepa.captions.rules import caption
from satjepa.contracts import CAPTION_KINDS, Captions
from satjepa.data.stack import ForecastError, read_stack
from satjepa.forecast.request import local_file
from satjepa.models.published import STEPS, STRENGTH
from satjepa.models.published.forecaster import PublishedForecaster

if TYPE_CHECKING:
    from satjepa.models.joint import JointModel

__all__ = [
    "CaptionForecaster",
    "encode_caption_batch",
    "load_and_resize_tif",
    "load_model",
    "predict_next_frame",
]


def load_model(
    checkpoint_path: str | Path, device: str | torch.device = "cpu", backbone: str | None = None
) -> JointModel:
    """A trained model on its frozen backbone, for forecasts: from a published `.pth.tar` or a
    folder of ours.

    backbone: a diffusers folder or hub id, instead of the checkpoint's own (SD 3.5 Medium for a
    published file). Raises PublishedError or CheckpointError for what is no such checkpoint,
    BackboneError where Stable Diffusion 3.5 is not to be had (it says how to get it),
    FileNotFoundError where there is nothing.
    """
    from satjepa.assemble import from_checkpoint, trained_on
    from satjepa.published.checkpoint import read_published
    from satjepa.published.convert import load_published
    from satjepa.training import checkpoint

    path = Path(checkpoint_path)
    if not (path.is_dir() or checkpoint.exists(path)):
        return load_published(read_published(path), backbone).to(device)
    found = checkpoint.load(path)
    try:
        split = trained_on(found)
    except (
        checkpoint.CheckpointError,
        FileNotFoundError,
    ):  # its data are not here: it forecasts, and is not scored
        split = None
    return from_checkpoint(found, device, split, backbone)


def load_and_resize_tif(path: str | Path, target_size: int = 128, white: float = 1.0) -> Tensor:
    """An RGB GeoTIFF as one square image, (3, target_size, target_size) float32 in [0, 1].

    The whole raster is resized, as the name says and the published code does: a tile of 10 km
    shrunk to 128 pixels is eight times coarser than the patches the model was trained on. To
    forecast a tile at its own resolution use `satjepa inference` or `satjepa forecast`. Shrinking
    averages; a raster of the target size comes back as it is.

    Numbers become [0, 1] by type (`satjepa.data.rasters.rgb_scale`), then `white` is shown as 1;
    holes take the nearest valid value; north is up. Raises SceneError, ForecastError where no pixel
    is valid, FileNotFoundError.
    """
    return shrunk(path, target_size, white)[0]


def shrunk(path: str | Path, side: int, white: float = 1.0) -> tuple[Tensor, Tensor]:
    """The image of `load_and_resize_tif`, (3,S,S), and where at least half of what it averages is
    valid, (1,S,S) bool.
    """
    path = local_file(path)
    stack = read_stack([path], [None], [white])  # (1,3,H,W)
    valid = torch.from_numpy(stack.valid)[None].float()  # (1,1,H,W)
    options = {"size": (side, side), "mode": "bilinear", "align_corners": False, "antialias": True}
    image = F.interpolate(torch.from_numpy(stack.rgb), **options)
    return image[0].clamp(0, 1), F.interpolate(valid, **options)[0] >= 0.5


def predict_next_frame(
    rgb_t: Tensor | np.ndarray, model: JointModel, captions: Sequence[str] | None = None,
    num_diffusion_steps: int = STEPS, noise_strength: float = STRENGTH, seed: int = 0,
    as_published: bool = False,
) -> Tensor:  # fmt: skip
    """The image of year t+1, (3, S, S) float32 in [0, 1] on the CPU; S is the side of the model's
    patch, 128 published.

    Args:
        rgb_t: image of year t, (3, S, S) or (1, 3, S, S) in [0, 1].
        captions: informative, geometric and semantic caption of year t. None: written from the
            pixels by rule; (): the published variant forecasts from its tokens alone, as it does
            wherever its code finds no captions.
        num_diffusion_steps: Euler steps from the noise level down to 0.
        noise_strength: the noise level that sampling starts from; the rest is the image of year t.
            1 is pure noise.
        as_published: one step, whatever num_diffusion_steps says, and without captions where none
            are given.

    Raises ForecastError for an image, captions or numbers that do not fit.
    """
    rgb = torch.as_tensor(rgb_t, dtype=torch.float32, device="cpu")
    rgb = rgb[0] if rgb.ndim == 4 and len(rgb) == 1 else rgb
    side = model.params.data.patch
    if rgb.shape != (3, side, side):
        raise ForecastError(
            f"an image of shape {tuple(rgb.shape)}; the model forecasts (3, {side}, {side})"
        )
    if not (rgb.isfinite().all() and rgb.min() >= 0 and rgb.max() <= 1):
        raise ForecastError(f"pixels from {rgb.min():g} to {rgb.max():g}; they must lie in [0, 1]")
    if captions is None and not as_published and model.params.model.use_captions:
        captions = caption(rgb.numpy(), np.ones((side, side), bool), encoding="display")
    elif captions and len(captions) != len(CAPTION_KINDS):
        raise ForecastError(
            f"{len(captions)} captions: give one of each kind: {', '.join(CAPTION_KINDS)}"
        )
    forecaster = as_called(
        model, num_diffusion_steps, noise_strength, as_published, heard=bool(captions)
    )
    batch = {
        "rgb_t": rgb[None], "valid_t": torch.ones(1, 1, side, side, dtype=torch.bool),
        "history": torch.zeros(1, model.params.data.history, 3, side, side),
        "history_valid": torch.zeros(1, model.params.data.history, dtype=torch.bool),
        "meta": [{"preset": "image", "region": "", "year": 0, "x": 0, "y": 0, "aug": 0}],
    }  # fmt: skip
    if captions and model.params.model.use_captions:
        batch["text_t"] = embedder(model)([Captions(*captions)])
    return forecaster.forecast(batch, 1, seed)[0, 0]


def as_called(
    model: JointModel, steps: int, strength: float, as_published: bool = False, heard: bool = True
) -> JointModel:
    """The same model (the same weights, not a copy) sampling as the card describes it: `steps`
    steps from `strength`.

    heard: whether it is given captions. ForecastError for numbers out of range, and for what only
    the variant `published` can do: one step whatever is asked for, a forecast without captions.
    """

    if steps < 1 or not 0 < strength <= 1:
        raise ForecastError(
            f"{steps} steps from noise strength {strength:g}: at least 1, and above 0 up to 1"
        )
    captions = model.params.model.use_captions
    variant = model.params.model.variant
    other = model.with_sampling(steps=steps, strength=strength)
    if variant == "published":
        count = 1 if as_published else steps
        other.sample = lambda seen, noise, _steps, _guidance, start, _strength: other.roll(
            seen, noise, count, start, strength
        )
        if captions and not heard:
            other.foresee = lambda batch, tokens: {}
    elif as_published or (captions and not heard):
        what = "sampling as published" if as_published else "a forecast without captions"
        raise ForecastError(
            f"{what}: only the variant 'published' can, this checkpoint is of the variant "
            f"{variant!r}"
        )
    return other


def CaptionForecaster(
    ijepa_dim: int = 768,
    text_dim: int = 4096,
    hidden_dim: int = 1024,
    num_layers: int = 3,
    num_heads: int = 8,
) -> PublishedForecaster:
    """The published caption forecaster under the card's names: tokens (B,N,ijepa_dim) of t+1 and T5
    states (B,L,text_dim) of the semantic caption of t -> those of t+1. 65,881,600 parameters with
    the defaults.
    """
    return PublishedForecaster(ijepa_dim, text_dim, hidden_dim, num_heads, num_layers)
