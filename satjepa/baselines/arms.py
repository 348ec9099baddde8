"""The arms of `baselines` in params.yaml as forecasters: built, trained, loaded, scored. Glue, as
`satjepa.assemble`.

arm = read_arm(params, "unet")
forecaster = load_arm(arm, params, train_arm(arm, params, run_dir))
score_arm("unet", arm, forecaster, params, run_dir / "scores.csv")
"""

from __future__ import annotations

import dataclasses
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
from satjepa.training import checkpoint, provenance

if TYPE_CHECKING:
    from satjepa.config import Params
    from satjepa.config.baselines import Arm
    from satjepa.contracts import Forecaster
    from satjepa.data.pairs import PairDataset

UNUSED = ("emb_tp1", "emb_valid")  # of a batch: no baseline sees embeddings


def build_arm(arm: Arm, params: Params) -> Any:
    """The forecaster of an arm as it is before training; equal `params.seed` give equal weights."""
    torch.manual_seed(params.seed)
    side = params.data.patch
    match arm.kind:
        case "climatology":
            return Climatology()
        case "trend":
            return LinearTrend()
        case "unet":
            return UNet(**arm.model)
        case "simvp":
            return SimVP(**arm.model)
        case "predrnn":
            return PredRNN(side, **arm.model)
        case "mcvd":
            return MCVD(side, **arm.model)
    return _stable_diffusion(arm, params)


def _stable_diffusion(arm: Arm, params: Params) -> nn.Module:
    """The frozen backbone from image to image, with LoRA if it is to be trained."""
    from safetensors.torch import load_file

    from satjepa.baselines.sd35 import SD35, img2img_path
    from satjepa.models.flow import sigmas

    sizes = dict(arm.model)
    b = params.backbone
    kind, steps, strength, prompt = (
        sizes.pop(name) for name in ("levels", "steps", "strength", "prompt")
    )
    backbone = load_backbone(params, lora=arm.train is not None)
    captions = embed_texts(params, ["", prompt] if prompt else [""])
    levels = sigmas(steps, backbone.shift, strength)
    if kind == "img2img":
        levels = img2img_path(steps, strength, backbone.shift)
    layout = load_file(Path(local(b.layout)) / "layout.safetensors") if b.layout else None
    return SD35(backbone, levels, captions[0], captions[1] if prompt else None, layout, **sizes)


def header_of(arm: Arm, params: Params, model: Any) -> dict[str, Any]:
    """Header of an arm's checkpoint: all that decides its weights."""
    train = arm.train and dataclasses.asdict(arm.train)
    config = {"kind": arm.kind, "model": arm.model, "train": train or {}, "seed": params.seed}
    config["data"] = dataclasses.asdict(params.data)
    backbone = ""
    if arm.kind == "sd35":
        config |= {
            name: dataclasses.asdict(getattr(params, name)) for name in ("backbone", "captions")
        }
        backbone = provenance.hash_module(model.backbone, frozen_only=True)
    return make_header(config, open_split().sha256, backbone, model)


def pairs_of(arm: Arm, params: Params, part: str) -> PairDataset:
    """The samples of a part of the first preset, with all that the arm reads of them."""
    text = arm.kind == "sd35"
    return dataset(params, part, text=text, latents=text, emb=False)


def train_arm(
    arm: Arm, params: Params, run_dir: str | Path, progress: bool = True,
    max_seconds: float | None = None, data: PairDataset | None = None,
) -> Path:  # fmt: skip
    """Train an arm on the training part of the first preset, or on `data`, some of it; returns the
    folder of its checkpoint.

    Where nothing is trained, the checkpoint is empty but for its header, and so is log.csv: every
    arm leaves the same files. Arguments and errors as of `satjepa.baselines.fit.fit`.
    """
    model = build_arm(arm, params)
    run = Path(run_dir)
    header = header_of(arm, params, model)
    if arm.train is None:
        folder = checkpoint.save(run / "model", {}, header, {"step": 0}, {})
        (run / "log.csv").write_text("step,lr,loss,grad_norm,val_loss\n")
        return folder
    data = pairs_of(arm, params, "train") if data is None else data
    validation = [
        {name: value for name, value in batch.items() if name not in UNUSED}
        for batch in batches(pairs_of(arm, params, "val"), arm.train.batch, arm.train.val_patches)
    ]
    return fit(
        model, data, validation, arm.train, run, header, params.seed, progress, max_seconds,
        params.train.workers,
    )  # fmt: skip


def load_arm(arm: Arm, params: Params, folder: str | Path) -> Forecaster:
    """The forecaster of an arm from its checkpoint; if it was trained, with `trained_on` set to the
    split that it must not be scored on.

    Raises CheckpointError if the checkpoint is of other settings, another split, or another
    backbone.
    """
    model = build_arm(arm, params)
    saved = checkpoint.load(folder)
    provenance.require_same(saved, header_of(arm, params, model))
    if arm.train is not None:
        load_trained(model, saved.tensors)
        model.trained_on = open_split()
    return model.to(the_device()).eval() if isinstance(model, nn.Module) else model


def members(arm: Arm, params: Params) -> int:
    """Forecasts of a place: `sample.samples` of what draws them, one of what is deterministic."""
    return params.sample.samples if arm.kind in ("mcvd", "sd35") else 1
