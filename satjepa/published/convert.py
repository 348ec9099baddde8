"""The published checkpoint as one of our folders, and back: `satjepa convert IN OUT`.

The folder is one of `satjepa.training.checkpoint`: `satjepa forecast` and
`satjepa.assemble.load_model` open it like any other. What our model has no place for is kept beside
it, so that the way back is exact: prompt embeddings and AdamW's moments in optimizer.safetensors,
epoch, loss and configuration in state.json. Nobody knows which patches the published model was
trained on: its split is noted as unknown, it can forecast, and evaluation refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from satjepa.config import Params, from_dict, load_params
from satjepa.data.splits import UnknownSplit
from satjepa.models.averages import AVERAGE
from satjepa.models.jepa import sincos_2d
from satjepa.published.checkpoint import (
    PROMPTS,
    Published,
    read_published,
    without_tokens,
    write_published,
)
from satjepa.published.dims import Dims, PublishedError, Sections, read_dims
from satjepa.published.layout import check, expected
from satjepa.published.names import LORA, SECTIONS, Tensors, to_published
from satjepa.published.settings import OURS, params_of
from satjepa.training import checkpoint, provenance

if TYPE_CHECKING:
    from satjepa.models.backbone import Backbone
    from satjepa.models.published.model import PublishedSatJepa

PLAIN = ("scaler", "epoch", "best_val_loss", "config", "use_lora")


def to_folder(published: Published, folder: str | Path, backbone: str | None = None) -> Path:
    """Write a published checkpoint as one of our folders; `backbone` as in `params_of`."""
    content = published.content
    params = params_of(published, backbone)
    beside = {name: content[name] for name in PROMPTS if name in content}
    optimizer = content.get("optimizer") or {"state": {}, "param_groups": []}
    moment_names = {}  # each once, in the order of the file
    for number, moments in optimizer["state"].items():
        for name, value in moments.items():
            beside[f"optimizer/{number}/{name}"] = torch.as_tensor(value)
            moment_names[name] = None
    notes = {key: content[key] for key in PLAIN if key in content}
    if "optimizer" in content:
        notes["param_groups"] = optimizer["param_groups"]
        notes["moments"] = list(moment_names)
    config = params.as_dict()
    unknown = checkpoint.UNKNOWN
    header = provenance.make_header(config, unknown, unknown, config["sample"])
    state = {"step": 0, "published": without_tokens(notes)}
    return checkpoint.save(folder, published.state(), header, state, beside)


def from_folder(folder: str | Path) -> dict[str, Any]:
    """The content of a published file, for `write_published`, from a folder of ours.

    A folder that `to_folder` made gives back what went in, bit for bit. Of one that was trained
    here, the averaged weights are taken, as its forecasts do; the prompt embeddings are zeros, as
    the published code saves them without text encoders, and there is no optimizer state.
    PublishedError for the variant `satjepa`.
    """
    saved = checkpoint.load(folder, with_optimizer=True)
    params = from_dict(provenance.settings_of(saved.header, load_params().as_dict()))
    if params.model.variant != "published":
        raise PublishedError(
            f"{folder} holds the variant {params.model.variant!r}; "
            "only the variant 'published' has the architecture of the published file"
        )
    content = _ordered(_sections(saved.tensors, params), params.backbone.lora_targets)
    notes = saved.state.get("published")
    if notes is None:  # it was trained here
        return content | _fresh(params, read_dims(content))
    content |= {name: saved.optimizer[name] for name in PROMPTS if name in saved.optimizer}
    content |= {key: notes[key] for key in PLAIN if key in notes}
    if "param_groups" in notes:
        content["optimizer"] = _optimizer(saved.optimizer, notes["param_groups"], notes["moments"])
    return content


def _sections(tensors: Tensors, params: Params) -> Sections:
    """The published sections of a folder's tensors, averaged weights where there are any."""
    state = dict(tensors)
    for name, tensor in tensors.items():
        if name.startswith(AVERAGE):
            state[name.removeprefix(AVERAGE)] = tensor
    state |= _tables(params, state)
    sections = {}
    for section in SECTIONS:
        if part := to_published(section, state):
            sections[section] = part
    return sections


def _ordered(sections: Sections, targets: Sequence[str]) -> dict[str, Any]:
    """The sections, checked, with their tensors in the published order.

    A folder does not keep that order; `targets`: the order of the layers that have LoRA.
    """

    def place(name: str) -> int:
        for i, target in enumerate(targets):
            if f".{target}.lora_" in name:
                return i
        return len(targets)

    lora = {name: sections[LORA][name] for name in sorted(sections[LORA], key=place)}
    wanted = expected(read_dims(sections), lora)
    check(sections, wanted)
    ordered = {}
    for section, names in wanted.items():
        ordered[section] = {name: sections[section][name] for name in names}
    return ordered


def _tables(params: Params, state: Tensors) -> Tensors:
    """The fixed position tables; a folder that was trained here does not hold them."""
    encoder = params.model.encoder
    grid = params.data.patch // encoder.patch
    widths = {
        "encoder.positions": encoder.dim,
        "target_encoder.positions": encoder.dim,
        "predictor.positions": params.model.predictor.dim,
    }
    return {name: sincos_2d(width, grid) for name, width in widths.items() if name not in state}


def _fresh(params: Params, dims: Dims) -> dict[str, Any]:
    """What the published file holds beside the weights, for a model that was trained here."""
    hidden, pooled = PROMPTS
    length = params.captions.max_length
    return {
        hidden: torch.zeros(1, length, dims.joint_dim, dtype=torch.bfloat16),
        pooled: torch.zeros(1, dims.pooled_dim, dtype=torch.bfloat16),
        "optimizer": {"state": {}, "param_groups": []},
        "scaler": None,
        "epoch": 0,
        "best_val_loss": float("inf"),
        "config": {OURS: params.as_dict()},
        "use_lora": True,
    }


def _optimizer(
    tensors: Tensors, groups: list[dict[str, Any]], moments: list[str]
) -> dict[str, Any]:
    """AdamW's state dict from tensors `optimizer/<number>/<moment>` and its groups."""
    numbers = {int(name.split("/")[1]) for name in tensors if name.startswith("optimizer/")}
    state = {}
    for number in sorted(numbers):
        state[number] = {}
        for moment in moments:
            name = f"optimizer/{number}/{moment}"
            if name in tensors:
                state[number][moment] = tensors[name]
    restored = []
    for group in groups:
        if "betas" in group:  # JSON has made a list of them
            group = group | {"betas": tuple(group["betas"])}
        restored.append(group)
    return {"state": state, "param_groups": restored}


def convert(source: str | Path, out: str | Path, backbone: str | None = None) -> Path:
    """A published file to a folder of ours, or a folder to a published file.

    What `source` is decides. Nothing is overwritten: PublishedError where `out` exists. Raises what
    reading raises.
    """
    source = Path(source)
    out = Path(out)
    if out.exists():
        raise PublishedError(f"{out} exists already: remove it, or name another place")
    if source.is_dir():
        return write_published(from_folder(source), out)
    return to_folder(read_published(source), out, backbone)


def load_published(published: Published, backbone: str | None = None) -> PublishedSatJepa:
    """The model of a published checkpoint on its frozen backbone, for forecasts.

    On the CPU, in evaluation mode. Its parameters are the mapped file, so that loading costs no
    memory twice; only LoRA is copied, into the dtype of the backbone. `trained_on` is unknown.
    BackboneError where Stable Diffusion 3.5 is not to be had, PublishedError where LoRA is of
    another transformer; `backbone` as in `params_of`.
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
    with torch.device("meta"):  # no memory: the tensors of the file take the places below
        model = PublishedSatJepa(params, base, empty)
    for module in ("encoder", "target_encoder", "predictor"):
        model.get_submodule(module).positions = state.pop(f"{module}.positions")
    lora = {name: state.pop(name) for name in [*state] if name.startswith(SECTIONS[LORA])}
    _load_lora(base, lora, published.path)
    model.load_state_dict(state, strict=False, assign=True)
    model.trained_on = UnknownSplit()
    model.reads_padding = True
    return model.eval()


def _load_lora(base: Backbone, lora: Tensors, path: Path) -> None:
    """Copy LoRA's tensors of a file into a backbone; PublishedError for another transformer's."""
    layers = {name: p for name, p in base.named_parameters("backbone") if p.requires_grad}
    differing = sorted(lora.keys() ^ layers.keys())
    if not differing:
        differing = [name for name in lora if lora[name].shape != layers[name].shape]
    if differing:
        raise PublishedError(
            f"{path}: {LORA} is not for the transformer of {base.source}: `{differing[0]}`"
        )
    with torch.no_grad():
        for name, layer in layers.items():
            layer.copy_(lora[name])
