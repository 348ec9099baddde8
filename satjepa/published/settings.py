"""Parameters with which our `build_model` builds the architecture of a published checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from satjepa.config import Params, from_dict, load_params
from satjepa.config.files import with_keys
from satjepa.models.published import STEPS, STRENGTH
from satjepa.published.checkpoint import PROMPTS, Published
from satjepa.published.layout import lora_targets
from satjepa.published.names import LORA
from satjepa.training import provenance

SD35 = "stabilityai/stable-diffusion-3.5-medium"
OURS = "satjepa"  # the group of a file's configuration that holds our parameters, where we wrote it
# Heads of the ViTs that I-JEPA's code knows, by width; 8 in adapter and forecaster. They show in no
# shape.
VIT_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
HEADS = 8


def params_of(published: Published, backbone: str | None = None) -> Params:
    """Parameters with which `build_model` builds the architecture of a file.

    Its own, where satjepa wrote it; else params.yaml with the dimensions of the file and the
    published heads, LoRA scale (alpha = 2 rank, unless the configuration says) and sampler (20
    steps from 0.35). backbone: a folder or hub id, by default the file's own, SD 3.5 Medium for its
    width of 4096, and otherwise that of params.yaml.
    """
    config = published.content.get("config") or {}
    dotted = _read_off(published)
    if backbone:
        dotted["backbone.path"] = backbone
    if OURS in config:
        ours = provenance.settings_of({"config": config[OURS]}, load_params().as_dict())
        return from_dict(with_keys(ours, dotted))
    assumed = _assumed(published, config)
    return from_dict(with_keys(load_params().as_dict(), assumed | dotted))


def _read_off(published: Published) -> dict[str, Any]:
    """Dotted parameters that the tensors of a file tell."""
    d = published.dims
    dotted = {
        "model.variant": "published",
        "model.use_jepa": True,
        "model.coarse_rgb": d.coarse,
        "model.use_captions": d.forecaster_layers > 0,
        "model.encoder.patch": d.patch,
        "model.encoder.dim": d.token_dim,
        "model.encoder.depth": d.depth,
        "model.predictor.dim": d.predictor_dim,
        "model.predictor.depth": d.predictor_depth,
        "model.adapter.dim": d.adapter_dim,
        "data.patch": d.grid * d.patch,
        "backbone.layout": None,
        "backbone.lora_rank": d.lora_rank,
        "backbone.lora_targets": lora_targets(published.content[LORA]),
        "train.muon_lr": None,
    }
    if d.forecaster_layers:
        dotted["model.forecaster.dim"] = d.forecaster_dim
        dotted["model.forecaster.layers"] = d.forecaster_layers
    return dotted


def _assumed(published: Published, config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted parameters that no tensor tells: as the published code has them."""
    d = published.dims
    vit = VIT_HEADS.get(d.token_dim, max(1, d.token_dim // 64))
    assumed = {
        "model.encoder.heads": vit,
        "model.predictor.heads": vit,
        "model.adapter.heads": HEADS,
        "model.forecaster.heads": HEADS,
        "data.history": 0,
        "sample.steps": STEPS,
        "sample.strength": STRENGTH,
        "sample.guidance": 1.0,
        "backbone.lora_alpha": float(_find(config, "lora_alpha") or 2 * d.lora_rank),
    }
    if PROMPTS[0] in published.content:
        assumed["captions.max_length"] = published.content[PROMPTS[0]].shape[1]
    if d.joint_dim == 4096:
        assumed["backbone.path"] = SD35
    return assumed


def _find(config: Any, key: str) -> Any:
    """The value of a key anywhere in a nested mapping, None where it is not."""
    if not isinstance(config, Mapping):
        return None
    if key in config:
        return config[key]
    for value in config.values():
        below = _find(value, key)
        if below is not None:
            return below
    return None
