"""The models that `full_size_all` measures, with random weights made on the device: SD 3.5 Medium's
shape in bfloat16, or, tiny, the same classes at toy size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sd35_medium import POOLED, TEXT, autoencoder, transformer
from torch import nn

from satjepa.config import Params, load_params
from satjepa.models.backbone import Backbone
from satjepa.models.joint import JointModel
from satjepa.models.published.model import PublishedSatJepa
from satjepa.models.satjepa import SatJepa
from satjepa.training.advance import advance

PAPER = Path(__file__).resolve().parents[1] / "params.paper.yaml"
LENGTHS = [48, 48, 48]  # words of rule-made captions: the longest of the demo's, rounded up
VARIANTS: dict[str, dict[str, Any]] = {
    "ours": {"captions.lengths": LENGTHS},
    "unmerged": {"captions.lengths": LENGTHS, "model.context_merge": 1},
    "untrimmed": {"model.context_merge": 1},
    "published": {"captions.max_length": 77},
}
SMALL = {"dim": 16, "depth": 1, "heads": 2}
TOY = {
    "backbone.layout": None, "data.patch": 32, "model.encoder": SMALL | {"patch": 8},
    "model.predictor": SMALL,
    "model.forecaster": {"dim": 16, "layers": 1, "heads": 2}, "captions.max_length": 16,
    "backbone.lora_rank": 2, "sample.steps": 3,
}  # fmt: skip
TOY_LENGTHS = [8, 8, 8]


class Bench:
    """One backbone, and one model on it at a time.

    rate: TFLOP/s of a matrix product, once measured. tflop: TFLOP of a training sample by name.
    """

    def __init__(self, device: str, tiny: bool) -> None:
        self.device = device
        self.tiny = tiny
        self.rate = float("nan")
        self.tflop: dict[str, float] = {}
        self.text, self.pooled = (128, 128) if tiny else (TEXT, POOLED)
        self._name = ""
        self._model: JointModel | None = None

    def build(self) -> None:
        """Put the backbone on the device."""
        params = self.params("ours")
        with torch.device("meta"):
            self.backbone = toy_backbone() if self.tiny else medium_backbone(params)
            b = params.backbone
            self.backbone.add_lora(b.lora_rank, b.lora_alpha, b.lora_targets)
        fill(self.backbone, self.device)
        self.model("ours")

    def params(self, name: str, settings: dict[str, Any] | None = None) -> Params:
        """params.paper.yaml with what distinguishes a model, and other settings on top."""
        arm = "published_captions" if name == "published" else None
        changes = dict(VARIANTS[name])
        if self.tiny:
            layers = 1
            changes |= TOY | {"model.adapter": {"dim": 16, "layers": layers, "heads": 2}}
            if "captions.lengths" in changes:
                changes["captions.lengths"] = TOY_LENGTHS
        return load_params(PAPER, arm=arm, **changes | (settings or {}))

    def model(self, name: str) -> JointModel:
        """The model of a name; the one before it is given up."""
        if name != self._name:
            self._model = None
            params = self.params(name)
            length = params.captions.max_length
            kind = PublishedSatJepa if name == "published" else SatJepa
            with torch.device("meta"):
                empty = {
                    "hidden": torch.zeros(length, self.text),
                    "mask": torch.ones(length, dtype=torch.bool),
                    "pooled": torch.zeros(self.pooled),
                }
                self._model = kind(params, self.backbone, empty)
            fill(self._model, self.device)
            self._name = name
        return self._model


def medium_backbone(params: Params) -> Backbone:
    """SD 3.5 Medium's shape, its transformer in `backbone.dtype`."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, params.backbone.dtype))
    try:
        frozen = transformer()
    finally:
        torch.set_default_dtype(default)
    return Backbone(frozen, autoencoder(), 3.0, "random")


def toy_backbone() -> Backbone:
    """The demo's classes at toy size: two blocks, latents of 4 x 4."""
    from satjepa.demo.tiny_sd3 import build_transformer, build_vae

    return Backbone(build_transformer(layers=2, heads=2, head_dim=16, side=4),
                    build_vae((8, 8, 8, 8), 32), 3.0, "random")  # fmt: skip


def fill(module: nn.Module, device: str) -> None:
    """Memory and random content for every tensor that is still on the meta device."""
    for child in module.modules():
        for store in (child._parameters, child._buffers):
            for name, tensor in store.items():
                if tensor is not None and tensor.is_meta:
                    made = _random(name, tensor, device)
                    if isinstance(tensor, nn.Parameter):
                        made = nn.Parameter(made, requires_grad=tensor.requires_grad)
                    store[name] = made


def _random(name: str, like: torch.Tensor, device: str) -> torch.Tensor:
    made = torch.empty(like.shape, dtype=like.dtype, device=device)
    if like.dtype == torch.bool:
        return made.fill_(True)
    if not like.is_floating_point():
        return made.zero_()
    if like.ndim == 1 and name == "weight":  # the factor of a norm
        return made.fill_(1.0)
    return made.normal_(0, 0.02)


def make_batch(params: Params, size: int, device: str, text: int) -> dict[str, Any]:
    """Random samples of the right shapes; words as long as the model reads them."""
    side = params.data.patch
    years = params.data.history
    length = max(params.captions.lengths or [params.captions.max_length])
    pooled = POOLED if text == TEXT else text
    on = {"device": device}
    ok = torch.ones(size, 1, side, side, dtype=torch.bool, **on)

    def words() -> dict[str, torch.Tensor]:
        return {
            "hidden": torch.randn(size, 3, length, text, **on),
            "pooled": torch.randn(size, 3, pooled, **on),
            "mask": torch.ones(size, 3, length, dtype=torch.bool, **on),
        }

    place = {"preset": "p", "region": "R", "year": 2020, "y": 0, "aug": 0}
    return {
        "rgb_t": torch.rand(size, 3, side, side, **on),
        "rgb_tp1": torch.rand(size, 3, side, side, **on),
        "valid_t": ok, "valid_tp1": ok, "emb_valid": ok,
        "emb_tp1": torch.randn(size, 64, side, side, **on),
        "history": torch.rand(size, years, 3, side, side, **on),
        "history_valid": torch.ones(size, years, dtype=torch.bool, **on),
        "text_t": words(), "text_tp1": words(),
        "meta": [place | {"x": side * i} for i in range(size)],
    }  # fmt: skip


def tflop_of_a_sample(run: Any) -> float:
    """Of forward and backward of a training step, counted by PyTorch as it runs."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        advance(run.forward, run.model, run.inputs)
    return counter.get_total_flops() / len(run.inputs[2]) / 1e12


def flops_on_meta(name: str) -> float:
    """TFLOP of a training sample of a model of ours, counted on the meta device: nothing is
    computed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from satjepa.models.drops import Drops

    bench = Bench("meta", tiny=False)
    bench.build()
    model = bench.model(name).train()
    size = 2
    batch = make_batch(model.params, size, "meta", TEXT)
    side = model.backbone.latent_size(model.params.data.patch)
    batch["latent_tp1"] = torch.empty(size, 16, side, side, device="meta")
    noise = torch.empty_like(batch["latent_tp1"])
    sigma = torch.empty(size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        model(batch, noise, sigma, Drops.all(sigma, False))[0].backward()
    return counter.get_total_flops() / size / 1e12
