"""The arms of `baselines` in params.yaml as forecasters: built, trained, loaded, scored. Glue, as
`satjepa.assemble`.

    forecaster = load_arm("unet", params, train_arm("unet", params, run_dir))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from satjepa.assemble import (
    batches,
    dataset,
    embed_texts,
    load_backbone,
    local,
    open_split,
    the_device,
)
from satjepa.baselines.fit import fit, load_trained, make_header
from satjepa.baselines.mcvd import MCVD
from satjepa.baselines.predrnn import PredRNN
from satjepa.baselines.simvp import SimVP
from satjepa.baselines.trend import Climatology, LinearTrend
from satjepa.baselines.unet import UNet
from satjepa.paths import write_text
from satjepa.training import checkpoint, provenance

if TYPE_CHECKING:
    from satjepa.config import Params
    from satjepa.config.baselines import SD35, Arm, SD35LoRA
    from satjepa.contracts import Forecaster
    from satjepa.data.pairs import PairDataset

UNUSED = ("emb_tp1", "emb_valid")  # of a batch: no baseline sees embeddings


def build_arm(name: str, params: Params) -> Any:
    """The forecaster of an arm as it is before training; equal `params.seed` give equal weights."""
    arm = params.baselines.read(name, params.data)
    torch.manual_seed(params.seed)
    side = params.data.patch
    settings = arm.model.model_dump() | arm.sample.model_dump()
    match arm.kind:
        case "climatology":
            return Climatology()
        case "trend":
            return LinearTrend()
        case "unet":
            return UNet(**settings)
        case "simvp":
            return SimVP(**settings)
        case "predrnn":
            return PredRNN(side, **settings)
        case "mcvd":
            return MCVD(side, **settings)
        case "sd35" | "sd35_lora":
            return _stable_diffusion(arm, params)
        case kind:
            raise AssertionError(f"build_arm has no case for the kind {kind}")


def _stable_diffusion(arm: SD35 | SD35LoRA, params: Params) -> nn.Module:
    """The frozen backbone from image to image, with LoRA if it is to be trained."""
    from safetensors.torch import load_file

    from satjepa.baselines import sd35
    from satjepa.models.flow import sigmas

    sample = arm.sample
    backbone = load_backbone(params, lora=arm.trained)
    empty, *prompt = embed_texts(params, ["", sample.prompt] if sample.prompt else [""])
    if sample.levels == "img2img":
        levels = sd35.img2img_path(sample.steps, sample.strength, backbone.shift)
    else:
        levels = sigmas(sample.steps, backbone.shift, sample.strength)
    folder = params.backbone.layout
    layout = load_file(Path(local(folder)) / "layout.safetensors") if folder else None
    return sd35.SD35(
        backbone,
        levels,
        empty,
        prompt[0] if prompt else None,
        layout,
        guidance=sample.guidance,
        work_size=sample.work_size,
        **arm.model.model_dump(),
    )


def header_of(name: str, params: Params, model: Any) -> dict[str, Any]:
    """Header of an arm's checkpoint: all that decides its weights."""
    arm = params.baselines.read(name, params.data)
    fit_settings = params.baselines.fit(name)
    config = {
        "kind": arm.kind,
        "model": arm.model.model_dump(),
        "train": fit_settings.model_dump() if fit_settings else {},
        "seed": params.seed,
        "data": params.data.model_dump(),
    }
    backbone = ""
    if reads_text(arm):
        config |= {key: getattr(params, key).model_dump() for key in ("backbone", "captions")}
        backbone = provenance.hash_module(model.backbone, frozen_only=True)
    return make_header(config, open_split().sha256, backbone, model)


def reads_text(arm: Arm) -> bool:
    """Whether an arm is given captions and latents: Stable Diffusion is."""
    return arm.kind in ("sd35", "sd35_lora")


def pairs_of(name: str, params: Params, part: str) -> PairDataset:
    """The samples of a part of the first preset, with all that the arm reads of them."""
    text = reads_text(params.baselines.read(name, params.data))
    return dataset(params, part, text=text, latents=text, emb=False)


def train_arm(
    name: str,
    params: Params,
    run_dir: str | Path,
    progress: bool = True,
    max_seconds: float | None = None,
    data: PairDataset | None = None,
) -> Path:
    """Train an arm on the training part of the first preset, or on `data`, some of it; returns the
    folder of its checkpoint.

    Where nothing is trained, the checkpoint is empty but for its header, and so is log.csv: every
    arm leaves the same files. Arguments and errors as of `satjepa.baselines.fit.fit`.
    """
    model = build_arm(name, params)
    run = Path(run_dir)
    header = header_of(name, params, model)
    settings = params.baselines.fit(name)
    if settings is None:
        folder = checkpoint.save(run / "model", {}, header, {"step": 0}, {})
        write_text(run / "log.csv", "step,lr,loss,grad_norm,val_loss\n")
        return folder
    data = pairs_of(name, params, "train") if data is None else data
    validation = []
    for batch in batches(pairs_of(name, params, "val"), settings.batch, settings.val_patches):
        validation.append({key: value for key, value in batch.items() if key not in UNUSED})
    return fit(
        model, data, validation, settings, run, header, params.seed, progress, max_seconds,
        params.train.workers,
    )  # fmt: skip


def load_arm(name: str, params: Params, folder: str | Path) -> Forecaster:
    """The forecaster of an arm from its checkpoint; if it was trained, with `trained_on` set to the
    split that it must not be scored on.

    Raises CheckpointError if the checkpoint is of other settings, another split, or another
    backbone.
    """
    model = build_arm(name, params)
    saved = checkpoint.load(folder)
    provenance.require_same(saved, header_of(name, params, model))
    if params.baselines.arms[name].trained:
        load_trained(model, saved.tensors)
        model.trained_on = open_split()
    return model.to(the_device()).eval() if isinstance(model, nn.Module) else model


def members(name: str, params: Params) -> int:
    """Forecasts of a place: `sample.samples` of what draws them, one of what is deterministic."""
    return params.sample.samples if params.baselines.arms[name].ensemble else 1
