"""The published checkpoint as one of our folders, and back: `satjepa convert IN OUT`.

The folder is one of `satjepa.training.checkpoint`: `satjepa forecast` and
`satjepa.assemble.load_model` open it like any other. What our model has no place for is kept beside
it, so that the way back is exact: prompt embeddings and AdamW's moments in optimizer.safetensors,
epoch, loss and configuration in state.json. Nobody knows which patches the published model
was trained on: its split is noted as unknown, it can forecast, and evaluation refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from satjepa.config import Params, from_dict, load_params
from satjepa.config.files import with_keys
from satjepa.data.splits import UnknownSplit
from satjepa.models.jepa import sincos_2d
from satjepa.published.checkpoint import (
    PROMPTS,
    Published,
    read_published,
    without_tokens,
    write_published,
)
from satjepa.published.dims import Dims, PublishedError, Sections, read_dims
from satjepa.published.layout import check, expected, lora_targets
from satjepa.published.names import LORA, SECTIONS, Tensors, to_published
from satjepa.training import checkpoint, provenance

if TYPE_CHECKING:
    from satjepa.models.backbone import Backbone
    from satjepa.models.published.model import PublishedSatJepa

SD35 = "stabilityai/stable-diffusion-3.5-medium"
OURS = "satjepa"  # the group of a file's configuration that holds our parameters, where we wrote it
# Heads of the ViTs that I-JEPA's code knows, by width; 8 in adapter and forecaster. No shape tells
# them.
VIT_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
HEADS = 8
PLAIN = ("scaler", "epoch", "best_val_loss", "config", "use_lora")


def params_of(published: Published, backbone: str | None = None) -> Params:
    """Parameters with which `build_model` builds the architecture of a file.

    Its own, where satjepa wrote it; else params.yaml with the dimensions of the file and the
    published heads, LoRA scale (alpha = 2 rank, unless the configuration says) and sampler (20
    steps from 0.35). backbone: a folder or hub id, by default the file's own, SD 3.5 Medium for its
    width of 4096, and otherwise that of params.yaml.
    """
    config = published.content.get("config") or {}
    d = published.dims
    dotted = {
        "model.variant": "published", "model.use_jepa": True, "model.coarse_rgb": d.coarse,
        "model.use_captions": d.forecaster_layers > 0, "data.patch": d.grid * d.patch,
        "backbone.layout": None, "train.muon_lr": None,
        "model.encoder.patch": d.patch, "model.encoder.dim": d.token_dim,
        "model.encoder.depth": d.depth, "model.predictor.dim": d.predictor_dim,
        "model.predictor.depth": d.predictor_depth, "model.adapter.dim": d.adapter_dim,
        "backbone.lora_rank": d.lora_rank,
        "backbone.lora_targets": lora_targets(published.content[LORA]),
    }  # fmt: skip
    if d.forecaster_layers:
        dotted |= {
            "model.forecaster.dim": d.forecaster_dim,
            "model.forecaster.layers": d.forecaster_layers,
        }
    if backbone:
        dotted["backbone.path"] = backbone
    if OURS in config:
        return from_dict(
            with_keys(
                provenance.settings_of({"config": config[OURS]}, load_params().as_dict()), dotted
            )
        )
    vit = VIT_HEADS.get(d.token_dim, max(1, d.token_dim // 64))
    heads = {"encoder": vit, "predictor": vit, "adapter": HEADS, "forecaster": HEADS}
    assumed = {f"model.{part}.heads": number for part, number in heads.items()}
    assumed |= {
        "data.history": 0,
        "sample.steps": 20,
        "sample.strength": 0.35,
        "sample.guidance": 1.0,
    }
    assumed["backbone.lora_alpha"] = float(_find(config, "lora_alpha") or 2 * d.lora_rank)
    if PROMPTS[0] in published.content:
        assumed["captions.max_length"] = published.content[PROMPTS[0]].shape[1]
    if d.joint_dim == 4096:
        assumed["backbone.path"] = SD35
    return from_dict(with_keys(load_params().as_dict(), assumed | dotted))


def _find(config: Any, key: str) -> Any:
    """The value of a key anywhere in a nested mapping, None where it is not."""
    if not isinstance(config, Mapping):
        return None
    return config.get(
        key, next((found for v in config.values() if (found := _find(v, key)) is not None), None)
    )


def to_folder(published: Published, folder: str | Path, backbone: str | None = None) -> Path:
    """Write a published checkpoint as one of our folders; `backbone` as in `params_of`."""
    content = published.content
    params = params_of(published, backbone)
    beside = {name: content[name] for name in PROMPTS if name in content}
    optimizer = content.get("optimizer") or {"state": {}, "param_groups": []}
    for number, moments in optimizer["state"].items():
        beside |= {
            f"optimizer/{number}/{name}": torch.as_tensor(value) for name, value in moments.items()
        }
    notes = {key: content[key] for key in PLAIN if key in content}
    if "optimizer" in content:
        notes["param_groups"] = optimizer["param_groups"]
        notes["moments"] = list(
            dict.fromkeys(name for moments in optimizer["state"].values() for name in moments)
        )
    config = params.as_dict()
    unknown = checkpoint.UNKNOWN
    header = provenance.make_header(config, unknown, unknown, config["sample"])
    return checkpoint.save(
        folder, published.state(), header, {"step": 0, "published": without_tokens(notes)}, beside
    )


def from_folder(folder: str | Path) -> dict[str, Any]:
    """The content of a published file (for `write_published`) from a folder of ours that holds that
    variant.

    A folder that `to_folder` made gives back what went in, bit for bit. Of one that was trained
    here, the averaged weights are taken, as its forecasts do; the prompt embeddings are zeros, as
    the published code saves them without text encoders, and there is no optimizer state.
    PublishedError for the variant `satjepa`.
    """
    found = checkpoint.load(folder, with_optimizer=True)
    params = from_dict(provenance.settings_of(found.header, load_params().as_dict()))
    if params.model.variant != "published":
        has = f"{folder} holds the variant {params.model.variant!r}"
        raise PublishedError(
            f"{has}; only the variant 'published' has the architecture of the published file"
        )
    averages = {
        name: tensor for name, tensor in found.tensors.items() if name.startswith("average.")
    }
    state = found.tensors | {
        name.removeprefix("average."): tensor for name, tensor in averages.items()
    }
    sections = {name: to_published(name, state | _tables(params, state)) for name in SECTIONS}
    content = _ordered(
        {name: part for name, part in sections.items() if part}, params.backbone.lora_targets
    )
    notes = found.state.get("published")
    if notes is None:
        return content | _fresh(params, read_dims(content))
    content |= {name: found.optimizer[name] for name in PROMPTS if name in found.optimizer}
    content |= {key: notes[key] for key in PLAIN if key in notes}
    if "param_groups" in notes:
        content["optimizer"] = _optimizer(found.optimizer, notes["param_groups"], notes["moments"])
    return content


def _ordered(sections: Sections, targets: Sequence[str]) -> dict[str, Any]:
    """The sections, checked, with their tensors in the published order, which a folder does not
    keep.
    """

    def place(name: str) -> int:
        return next(
            (i for i, target in enumerate(targets) if f".{target}.lora_" in name), len(targets)
        )

    lora = dict(sorted(sections[LORA].items(), key=lambda item: place(item[0])))
    wanted = expected(read_dims(sections), lora)
    check(sections, wanted)
    return {
        section: {name: sections[section][name] for name in names}
        for section, names in wanted.items()
    }


def _tables(params: Params, state: Tensors) -> Tensors:
    """The fixed position tables; a folder that was trained here does not hold them."""
    m = params.model
    grid = params.data.patch // params.model.encoder.patch
    widths = {
        "encoder": m.encoder.dim,
        "target_encoder": m.encoder.dim,
        "predictor": m.predictor.dim,
    }
    names = {f"{name}.positions": width for name, width in widths.items()}
    return {name: sincos_2d(width, grid) for name, width in names.items() if name not in state}


def _fresh(params: Params, dims: Dims) -> dict[str, Any]:
    """What the published file holds beside the weights, for a model that was trained here."""
    return {
        PROMPTS[0]: torch.zeros(1, params.captions.max_length, dims.joint_dim,
        dtype=torch.bfloat16), PROMPTS[1]: torch.zeros(1, dims.pooled_dim, dtype=torch.bfloat16),
        "optimizer": {"state": {}, "param_groups": []}, "scaler": None, "epoch": 0,
        "best_val_loss": float("inf"), "config": {OURS: params.as_dict()}, "use_lora": True,
    }  # fmt: skip


def _optimizer(
    tensors: Tensors, groups: list[dict[str, Any]], moments: list[str]
) -> dict[str, Any]:
    """AdamW's state dict from `optimizer/<number>/<moment>` and its groups, whose betas JSON has
    made lists.
    """
    numbers = sorted({int(name.split("/")[1]) for name in tensors if name.startswith("optimizer/")})
    names = {
        number: {moment: f"optimizer/{number}/{moment}" for moment in moments} for number in numbers
    }
    state = {
        i: {moment: tensors[n] for moment, n in row.items() if n in tensors}
        for i, row in names.items()
    }
    groups = [
        group | {key: tuple(group[key]) for key in ("betas",) if key in group} for group in groups
    ]
    return {"state": state, "param_groups": groups}


def convert(source: str | Path, out: str | Path, backbone: str | None = None) -> Path:
    """A published file to a folder of ours, or a folder to a published file: what `source` is
    decides.

    Nothing is overwritten: PublishedError where `out` exists. Raises what reading raises.
    """
    source = Path(source)
    out = Path(out)
    if out.exists():
        raise PublishedError(f"{out} exists already: remove it, or name another place")
    if source.is_dir():
        return write_published(from_folder(source), out)
    return to_folder(read_published(source), out, backbone)


def load_published(published: Published, backbone: str | None = None) -> PublishedSatJepa:
    """The model of a published checkpoint on its frozen backbone, for forecasts: on the CPU, in
    evaluation mode.

    Its parameters are the mapped file, so that loading costs no memory twice; only LoRA is copied,
    into the dtype of the backbone. `trained_on` is unknown. BackboneError where Stable Diffusion
    3.5 is not to be had, PublishedError where LoRA is of another transformer; `backbone` as in
    `params_of`.
    """
    from satjepa.assemble import load_backbone

    params = params_of(published, backbone)
    return model_of(published, params, load_backbone(params))


def model_of(published: Published, params: Params, base: Backbone) -> PublishedSatJepa:
    """The model of a published checkpoint on a backbone at hand, as `load_published` has it."""
    from satjepa.models.published.model import PublishedSatJepa

    state = published.state()
    dims = published.dims
    here = (base.joint_dim, base.pooled_dim)
    there = (dims.joint_dim, dims.pooled_dim)
    if here != there:
        raise PublishedError(
            f"{published.path} is for context and pooled widths {there}; {base.source} has {here}"
        )
    empty = {"hidden": torch.empty(1, base.joint_dim), "pooled": torch.empty(base.pooled_dim)}
    with torch.device("meta"):
        model = PublishedSatJepa(params, base, empty)
    for module in ("encoder", "target_encoder", "predictor"):
        model.get_submodule(module).positions = state.pop(f"{module}.positions")
    lora = {name: state.pop(name) for name in [*state] if name.startswith(SECTIONS[LORA])}
    layers = {name: p for name, p in base.named_parameters("backbone") if p.requires_grad}
    if odd := sorted(lora.keys() ^ layers.keys()) or [
        n for n in lora if lora[n].shape != layers[n].shape
    ]:
        raise PublishedError(
            f"{published.path}: {LORA} is not for the transformer of {base.source}: `{odd[0]}`"
        )
    with torch.no_grad():
        for name, layer in layers.items():
            layer.copy_(lora[name])
    model.load_state_dict(state, strict=False, assign=True)
    model.trained_on = UnknownSplit()
    model.reads_padding = True
    return model.eval()
