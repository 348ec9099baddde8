"""Published checkpoints in miniature, with random weights: the layout at small widths."""

from pathlib import Path

import torch

from satjepa.published.dims import Dims
from satjepa.published.layout import KEYS, expected
from satjepa.published.names import LORA

WIDTH = 160  # of assets/tiny_sd3
BLOCKS = 4
DIMS = Dims(
    patch=8, grid=8, token_dim=128, depth=2, predictor_dim=64, predictor_depth=2, joint_dim=128,
    pooled_dim=128, adapter_dim=24, coarse=0, forecaster_dim=32, forecaster_layers=2, lora_rank=4,
)  # fmt: skip
COARSE = DIMS._replace(coarse=32, forecaster_dim=0, forecaster_layers=0)
TOKEN = "hf_" + "abcdefghijklmnop"
CONFIG = {
    "meta": {
        "model_name": "vit_base",
        "lora_rank": 4,
        "lora_alpha": 8,
        "hf_token": TOKEN,
        "use_bfloat16": True,
    },
    "data": {
        "crop_size": 64,
        "hub": {"auth_token": TOKEN},
        "max_tokens": 77,
        "keys": [TOKEN, "other"],
    },
    "optimization": {"ema": [0.999, 1.0], "note": None},
}


def lora_names(dual: int = 0) -> list[str]:
    """Names of LoRA's tensors on a transformer of BLOCKS blocks.

    dual: how many of them, from the first, have a second attention.
    """
    names = []
    for block in range(BLOCKS):
        for attention in ("attn", "attn2") if block < dual else ("attn",):
            for target in ("to_q", "to_k", "to_v", "to_out.0"):
                layer = f"base_model.model.transformer_blocks.{block}.{attention}.{target}"
                names += [f"{layer}.lora_{side}.default.weight" for side in "AB"]
    return names


def content(dims: Dims = DIMS, dual: int = 0, half: bool = False, optimizer: bool = True) -> dict:
    """What a published file holds, in miniature.

    Random weights, an AdamW state of three parameters, a configuration with access tokens.
    """
    torch.manual_seed(7)
    shapes = {"A": (dims.lora_rank, WIDTH), "B": (WIDTH, dims.lora_rank)}
    lora = {}
    for name in lora_names(dual):
        side = name.split(".lora_")[1][0]
        lora[name] = torch.randn(shapes[side])
    parts = {}
    for section, part in expected(dims, lora).items():
        parts[section] = {name: 0.05 * torch.randn(shape) for name, shape in part.items()}
    parts[LORA] = {name: tensor.bfloat16() for name, tensor in lora.items()} if half else lora
    parts |= {
        "prompt_embeds": torch.randn(1, 77, dims.joint_dim).bfloat16(),
        "pooled_prompt_embeds": torch.zeros(1, dims.pooled_dim).bfloat16(),
        "scaler": None,
        "epoch": 12,
        "best_val_loss": 1 / 3,
        "config": CONFIG,
        "use_lora": True,
    }
    if optimizer:
        parts["optimizer"] = adamw_state()
    return {key: parts[key] for key in KEYS if key in parts}


def adamw_state() -> dict:
    """The state of an AdamW of three parameters."""
    state = {}
    for number in range(3):
        state[number] = {
            "step": torch.tensor(3.0),
            "exp_avg": torch.randn(2, 3),
            "exp_avg_sq": torch.randn(2, 3),
        }
    group = {
        "lr": 1e-4 / 3,
        "betas": (0.9, 0.999),
        "amsgrad": False,
        "maximize": None,
        "params": [0, 1, 2],
    }
    return {"state": state, "param_groups": [group]}


def saved(values: object, path: Path) -> Path:
    """`torch.save`, as the published code does it."""
    torch.save(values, path)
    return path


def difference(a: object, b: object, where: str = "") -> str:
    """The first place where two trees differ in type or in any bit, "" if they do not.

    Trees of dicts, lists, tensors and plain values.
    """
    if type(a) is not type(b):
        return f"{where}: {type(a)} and {type(b)}"
    if isinstance(a, dict):
        if list(a) != list(b):
            return f"{where}: keys {list(a)} and {list(b)}"
        pairs = [(key, a[key], b[key]) for key in a]
    elif isinstance(a, list | tuple):
        pairs = [(i, x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    elif isinstance(a, torch.Tensor):
        if _bit_equal(a, b):
            return ""
        return f"{where}: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}, or their bits"
    else:
        return "" if a == b else f"{where}: {a!r} and {b!r}"
    for key, x, y in pairs:
        if found := difference(x, y, f"{where}/{key}"):
            return found
    return ""


def _bit_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    first, second = (tensor.flatten().contiguous().view(torch.uint8) for tensor in (a, b))
    return torch.equal(first, second)


def without_extras() -> dict:
    """A small checkpoint with the weights and nothing that a reader can do without."""
    made = content(optimizer=False)
    for key in (
        "config",
        "scaler",
        "epoch",
        "best_val_loss",
        "use_lora",
        "prompt_embeds",
        "pooled_prompt_embeds",
    ):
        del made[key]
    return made
