"""Write the published checkpoint at full size with random weights, load it strictly, and measure.

    python benchmarks/checkpoint.py [--branch coarse] [--optimizer]
                                    [--layout checkpoint_layout.json]

Five steps, each a process of its own, each a line with its seconds and its peak of resident memory
(mapped pages of the file included) over the size of the file:

    write     random weights, and the file written
    read      the file read and checked; with --layout also against that description, name by name
    load      read, and made a model: on SD 3.5 Medium's transformer on the meta device, which costs
              nothing; then every parameter is touched, so that all of the file that counts is in
              memory
    rewrite   read, written again and read again: are all tensors bit-equal, the files byte-equal?
    folder    converted to a folder of ours and back: are all tensors bit-equal?

Takes 6 GB of a temporary folder, 16 with --optimizer, and removes them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sd35_medium import BLOCKS, DUAL, WIDTH, transformer

from satjepa.models.backbone import Backbone
from satjepa.published.checkpoint import read_published, write_published
from satjepa.published.convert import from_folder, model_of, to_folder
from satjepa.published.dims import Dims
from satjepa.published.layout import KEYS, expected
from satjepa.published.names import LORA
from satjepa.published.settings import params_of

FULL = Dims(
    patch=8, grid=16, token_dim=768, depth=12, predictor_dim=384, predictor_depth=6, joint_dim=4096,
    pooled_dim=2048, adapter_dim=1024, coarse=0, forecaster_dim=1024, forecaster_layers=3,
    lora_rank=16,
)  # fmt: skip
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def full_size(branch: str, with_optimizer: bool) -> dict[str, Any]:
    """The content of a published file at full size, with random weights."""
    dims = FULL
    if branch == "coarse":
        dims = FULL._replace(coarse=32, forecaster_dim=0, forecaster_layers=0, lora_rank=8)
    lora = random_lora(dims.lora_rank)  # first: its names tell `expected` which layers have LoRA
    content: dict[str, Any] = {}
    for section, shapes in expected(dims, lora).items():
        content[section] = {name: 0.02 * torch.randn(shape) for name, shape in shapes.items()}
    content[LORA] = lora
    trained = []
    for section, tensors in content.items():
        if section != "target_encoder":
            trained += tensors.values()
    content |= {
        "prompt_embeds": torch.zeros(1, 77, 4096, dtype=torch.bfloat16),
        "pooled_prompt_embeds": torch.zeros(1, 2048, dtype=torch.bfloat16),
        "optimizer": adamw_state(trained if with_optimizer else []),
        "scaler": None,
        "epoch": 100,
        "best_val_loss": 0.5,
        "config": {"meta": {"lora_alpha": 2 * dims.lora_rank}},
        "use_lora": True,
    }
    return {key: content[key] for key in KEYS if key in content}


def random_lora(rank: int) -> dict[str, torch.Tensor]:
    """LoRA's tensors on every attention of SD 3.5 Medium; its first blocks have two."""
    shapes = {"A": (rank, WIDTH), "B": (WIDTH, rank)}
    lora = {}
    for block in range(BLOCKS):
        for attention in ("attn", "attn2") if block < DUAL else ("attn",):
            for target in TARGETS:
                layer = f"base_model.model.transformer_blocks.{block}.{attention}.{target}"
                for side, shape in shapes.items():
                    lora[f"{layer}.lora_{side}.default.weight"] = torch.randn(shape) / rank
    return lora


def adamw_state(trained: list[torch.Tensor]) -> dict[str, Any]:
    """A state of AdamW with random moments of these tensors."""
    state = {}
    for number, tensor in enumerate(trained):
        state[number] = {
            "step": torch.tensor(1000.0),
            "exp_avg": torch.randn(tensor.shape),
            "exp_avg_sq": torch.rand(tensor.shape),
        }
    group = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.04}
    return {"state": state, "param_groups": [group | {"params": [*state]}]}


def compare_layout(content: dict[str, Any], path: Path) -> str:
    """Compare names and shapes with checkpoint_layout.json.

    AssertionError names the section that differs.
    """
    layout = json.loads(path.read_text())
    wanted = {}
    for name, part in layout["state_dicts"].items():
        if name in content and isinstance(part, dict):
            wanted[name] = part
    wanted["target_encoder"] = wanted["encoder"]  # the description has it once
    if "caption_forecaster" not in content:
        wanted["cond_adapter"] = layout["coarse_rgb_main_branch"]["cond_adapter"]
        wanted.pop(LORA)  # of another rank there
    for section, tensors in wanted.items():
        shapes = {name: list(tensor.shape) for name, tensor in content[section].items()}
        assert shapes == {name: row["shape"] for name, row in tensors.items()}, section
    count = sum(len(tensors) for tensors in wanted.values())
    return f"{count} tensors in {len(wanted)} sections, names and shapes as in {path.name}"


def meta_backbone(rank: int) -> Backbone:
    """SD 3.5 Medium's transformer with LoRA, and a VAE, on the meta device."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        backbone = Backbone(transformer(), AutoencoderKL(), source="meta")
        return backbone.add_lora(rank, 2 * rank, TARGETS)


def load(path: Path, backbone: Backbone) -> str:
    """Read the file into the model it describes, strictly, and touch every parameter."""
    published = read_published(path)
    model = model_of(published, params_of(published), backbone)
    loaded = {name: p for name, p in model.named_parameters() if not name.startswith("backbone.")}
    total = sum(float(p.detach().sum()) for p in loaded.values())  # reads every page of the file
    count = sum(p.numel() for p in loaded.values())
    lora = len(published.content[LORA])
    return f"{count:,} parameters and {lora} tensors of LoRA found their place (sum {total:.1f})"


def rewrite(path: Path) -> str:
    """Write what was read, compare bytes, and every tensor bit by bit."""
    first = read_published(path).content
    again = write_published(first, path.with_suffix(".again"))
    equal = "byte-equal" if _digest(path) == _digest(again) else "DIFFERENT"
    return f"{_compared(first, read_published(again).content)}, files {equal}"


def folder(path: Path) -> str:
    """Convert the file to a folder of ours and the folder back, and compare."""
    first = read_published(path)
    return _compared(first.content, from_folder(to_folder(first, path.with_suffix(".folder"))))


def _compared(first: dict[str, Any], second: dict[str, Any]) -> str:
    pairs = [(first[key], second[key]) for key in first]
    equal = [torch.equal(_bytes(a), _bytes(b)) for a, b in _tensors(pairs)]
    return f"{sum(equal)} of {len(equal)} tensors bit-equal"


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten().view(torch.uint8)


def _tensors(pairs: list[tuple[Any, Any]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All pairs of tensors at equal places of pairs of nested dictionaries."""
    for a, b in pairs:
        if isinstance(a, dict):
            yield from _tensors([(a[key], b[key]) for key in a])
        elif isinstance(a, torch.Tensor):
            yield a, b


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def measured(name: str, path: Path, args: argparse.Namespace) -> None:
    """Run one step and print its line."""
    backbone = None
    if name == "load":
        backbone = meta_backbone(16 if args.branch == "caption" else 8)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    start = time.perf_counter()
    if name == "write":
        write_published(full_size(args.branch, args.optimizer), path)
        result = f"{path.stat().st_size:,} bytes"
    elif name == "read":
        content = read_published(path).content
        result = compare_layout(content, args.layout) if args.layout else f"{len(content)} keys"
    elif name == "load":
        result = load(path, backbone)
    elif name == "rewrite":
        result = rewrite(path)
    else:
        result = folder(path)
    seconds = time.perf_counter() - start
    peak = _memory("VmHWM") - before
    share = peak / path.stat().st_size
    print(
        f"{name}: {seconds:.1f} s, {peak / 1e9:.2f} GB, {share:.2f} of the file; {result}",
        flush=True,
    )


def _memory(kind: str) -> int:
    """Resident memory of this process in bytes: VmRSS at this moment, VmHWM at its peak."""
    status = Path("/proc/self/status").read_text()
    kilobytes = re.search(rf"{kind}:\s+(\d+) kB", status)[1]
    return 1024 * int(kilobytes)


def main() -> None:
    """Run the steps, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--branch", choices=("caption", "coarse"), default="caption")
    parser.add_argument("--optimizer", action="store_true", help="with AdamW's moments")
    parser.add_argument("--layout", type=Path, help="checkpoint_layout.json to compare with")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        measured(args.step, args.path, args)
        return
    # A process for each step: a peak of memory is one of a process.
    command = [sys.executable, __file__, *sys.argv[1:]]
    with tempfile.TemporaryDirectory() as place:
        path = f"{place}/published.pth.tar"
        for name in ("write", "read", "load", "rewrite", "folder"):
            subprocess.run([*command, "--step", name, "--path", path], check=True)


if __name__ == "__main__":
    main()
