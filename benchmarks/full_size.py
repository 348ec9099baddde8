"""The full-size model: memory of each module, one training step and one forecast, with random
weights.

    python benchmarks/full_size.py [--variant published] [--batch 1] [--steps 4] [--only-meta]
    python benchmarks/full_size.py --all [--seconds 285] [--out FOLDER] [--tiny] [--only PATTERN]

Architecture, precision and batch are those of params.paper.yaml on the shape of Stable Diffusion
3.5 Medium. First a table from the meta device, which costs nothing: parameters, memory of the
weights, and of gradients and AdamW's moments where a module trains. Then the model is built on the
GPU, or on the CPU where there is none (12 GB of memory, some minutes), makes one training step and
one forecast, and its memory and times are printed.

--all measures everything (`full_size_all`): training by phase at batches of 8, 32 and 64, forecasts
of 1, 16 and 64 patches with each lever on and off, memory, TFLOP a sample, share of the rate of a
matrix product measured in the same run, differences from the plain paths. What is not reached
within --seconds is left out and named. --tiny takes the same way at toy size, --only
runs the cases whose name the pattern finds.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import Any

import torch
from sd35_medium import POOLED, TEXT, autoencoder, transformer
from torch import nn

from satjepa.config import Params, load_params
from satjepa.models.backbone import Backbone
from satjepa.models.drops import Chances, sample_drops
from satjepa.models.joint import JointModel
from satjepa.models.published.model import PublishedSatJepa
from satjepa.models.satjepa import SatJepa
from satjepa.training.optim import make_stepping

REPO = Path(__file__).resolve().parents[1]
ARMS = {"satjepa": None, "published": "published_captions", "coarse": "published_coarse"}


def build(params: Params) -> JointModel:
    """The model on SD 3.5 Medium's shape, frozen weights in `backbone.dtype`; call it under a meta
    device or not.
    """
    frozen = transformer().to(getattr(torch, params.backbone.dtype))
    b = params.backbone
    length = params.captions.max_length
    backbone = Backbone(frozen, autoencoder(), 3.0, "random").add_lora(
        b.lora_rank, b.lora_alpha, b.lora_targets
    )
    mask = torch.ones(length, dtype=torch.bool)
    empty = {"hidden": torch.zeros(length, TEXT), "mask": mask, "pooled": torch.zeros(POOLED)}
    kind = PublishedSatJepa if params.model.variant == "published" else SatJepa
    return kind(params, backbone, empty)


def modules(model: JointModel) -> dict[str, nn.Module]:
    """The model's parts by name, the backbone's apart."""
    parts = {name: child for name, child in model.named_children() if name != "backbone"}
    return parts | {"SD 3.5 transformer": model.backbone.transformer, "VAE": model.backbone.vae}


def print_table(model: JointModel) -> None:
    """Parameters and memory of each module, as Markdown."""
    print("| module | parameters, M | trained, M | weights, GB | gradients and moments, GB |")
    print("|---|---|---|---|---|")
    total = [0.0] * 4
    for name, module in modules(model).items():
        own = list(module.parameters())
        trained = sum(p.numel() for p in own if p.requires_grad)
        row = [
            sum(p.numel() for p in own) / 1e6,
            trained / 1e6,
            sum(p.nbytes for p in own) / 1e9,
            12 * trained / 1e9,
        ]
        total = [a + b for a, b in zip(total, row, strict=True)]
        print(f"| {name} | {row[0]:.1f} | {row[1]:.1f} | {row[2]:.2f} | {row[3]:.2f} |")
    print(
        f"| **all** | {total[0]:.1f} | {total[1]:.1f} | {total[2]:.2f} | {total[3]:.2f} |",
        flush=True,
    )


def materialise(model: JointModel, device: str) -> None:
    """Memory and random content for what was built on the meta device."""
    model.to_empty(device=device)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.dtype == torch.bool:
                tensor.fill_(True)
            elif tensor.is_floating_point():
                tensor.fill_(1.0) if _is_gain(name, tensor) else tensor.normal_(0, 0.02)
            else:
                tensor.zero_()


def _is_gain(name: str, tensor: torch.Tensor) -> bool:
    """Whether this is the factor of a norm, which starts at 1, not at 0."""
    return tensor.ndim == 1 and "norm" in name and name.endswith("weight")


def make_batch(params: Params, size: int, device: str) -> dict[str, Any]:
    """Random samples of the right shapes."""
    side = params.data.patch
    years = params.data.history
    length = params.captions.max_length
    ok = torch.ones(size, 1, side, side, dtype=torch.bool, device=device)
    random = {"device": device}

    def text() -> dict[str, torch.Tensor]:
        return {"hidden": torch.randn(size, 3, length, TEXT, **random),
                "pooled": torch.randn(size, 3, POOLED, **random),
                "mask": torch.ones(size, 3, length, dtype=torch.bool, device=device)}  # fmt: skip

    return {
        "rgb_t": torch.rand(size, 3, side, side, **random), "rgb_tp1": torch.rand(size, 3, side,
        side, **random), "valid_t": ok, "valid_tp1": ok, "emb_valid": ok,
        "emb_tp1": torch.randn(size, 64, side, side, **random), "history": torch.rand(size, years,
        3, side, side, **random), "text_t": text(), "text_tp1": text(),
        "history_valid": torch.ones(size, years, dtype=torch.bool, device=device),
        "meta": [{"preset": "p", "region": "R", "year": 2020, "x": side * i,
        "y": 0} for i in range(size)],
    }  # fmt: skip


def peak(device: str) -> float:
    """GB in use at the peak: of the GPU, or resident memory of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return (
        int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e9
    )


def reset_peak(device: str) -> None:
    """Let the peak start anew."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def train_once(model: JointModel, params: Params, batch: dict[str, Any], device: str) -> float:
    """The seconds of one training step under bfloat16 autocast."""
    size = len(batch["meta"])
    stepping = make_stepping(model, params.train)
    side = model.backbone.latent_size(params.data.patch)
    noise = torch.randn(size, model.backbone.latent_channels, side, side, device=device)
    chances = Chances(params.train.caption_dropout, params.train.token_dropout)
    drops = sample_drops(size, chances)
    drops = type(drops)(*(drop.to(device) for drop in drops))
    start = time.perf_counter()
    with torch.autocast(device, torch.bfloat16):
        loss, _ = model(batch, noise, torch.rand(size, device=device).clamp(0.01, 0.99), drops)
    loss.backward()
    stepping.set_rates(0)
    norm = stepping.clip()
    for optimizer in stepping.optimizers:
        optimizer.step()
    model.update_target(0.999)
    model.average_weights(0.999)
    print(f"loss {loss.item():.2f}, gradient norm {norm.item():.3g}")
    return time.perf_counter() - start


def main() -> None:
    """Print the table, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=ARMS, default="satjepa")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4, help="of the sampler")
    parser.add_argument("--only-meta", action="store_true")
    parser.add_argument("--all", action="store_true", help="measure everything, as a table")
    parser.add_argument("--seconds", type=float, default=285, help="of --all, at most")
    parser.add_argument("--out", type=Path, default=Path("full_size"), help="folder of --all")
    parser.add_argument("--tiny", action="store_true", help="--all at toy size")
    parser.add_argument("--only", default="", help="cases of --all, a regular expression")
    args = parser.parse_args()
    if args.all:
        from full_size_all import measure_all

        measure_all(args.out, args.seconds, args.tiny, args.only)
        return
    params = load_params(
        REPO / "params.paper.yaml", arm=ARMS[args.variant], **{"sample.steps": args.steps}
    )
    with torch.device("meta"):
        model = build(params)
    print_table(model)
    if args.only_meta:
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    materialise(model, device)
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    print(f"built on {name}: {peak(device):.2f} GB", flush=True)
    batch = make_batch(params, args.batch, device)
    seconds = [
        train_once(model.train(), params, batch, device)
        for _ in range(2 if device == "cuda" else 1)
    ]
    pace = f"{seconds[-1]:.2f} s, {args.batch / seconds[-1]:.2f} images/s"
    print(f"training step of {args.batch}: {pace}, peak {peak(device):.2f} GB", flush=True)
    model.zero_grad(set_to_none=True)
    reset_peak(device)
    model.eval().forecast(batch)  # the first one warms up
    start = time.perf_counter()
    images = model.forecast(batch)
    print(f"forecast of {args.batch}: {time.perf_counter() - start:.2f} s, {tuple(images.shape)}, "
          f"finite: {bool(images.isfinite().all())}, peak {peak(device):.2f} GB")  # fmt: skip


if __name__ == "__main__":
    main()
