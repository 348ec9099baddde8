"""Published checkpoints in miniature, with random weights: the layout at small widths, for the
tests that read them.
"""

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
    """Names of LoRA's tensors on a transformer of BLOCKS blocks, the first `dual` of them with a
    second attention.
    """
    places = [(i, a) for i in range(BLOCKS) for a in ("attn", "attn2") if a == "attn" or i < dual]
    layers = [f"{i}.{a}.{t}" for i, a in places for t in ("to_q", "to_k", "to_v", "to_out.0")]
    return [
        f"base_model.model.transformer_blocks.{n}.lora_{s}.default.weight"
        for n in layers
        for s in "AB"
    ]


def content(dims: Dims = DIMS, dual: int = 0, half: bool = False, optimizer: bool = True) -> dict:
    """What a published file holds: random weights, an AdamW state of three parameters, a
    configuration with tokens.
    """
    torch.manual_seed(7)
    shapes = {"A": (dims.lora_rank, WIDTH), "B": (WIDTH, dims.lora_rank)}
    lora = {name: torch.randn(shapes[name.split(".lora_")[1][0]]) for name in lora_names(dual)}
    made = {
        s: {n: 0.05 * torch.randn(shape) for n, shape in part.items()}
        for s, part in expected(dims, lora).items()
    }
    made[LORA] = {name: tensor.bfloat16() for name, tensor in lora.items()} if half else lora
    moments = ("exp_avg", "exp_avg_sq")
    state = {
        i: {"step": torch.tensor(3.0)} | {name: torch.randn(2, 3) for name in moments}
        for i in range(3)
    }
    group = {
        "lr": 1e-4 / 3,
        "betas": (0.9, 0.999),
        "amsgrad": False,
        "maximize": None,
        "params": [0, 1, 2],
    }
    made |= {
        "prompt_embeds": torch.randn(1, 77, dims.joint_dim).bfloat16(),
        "pooled_prompt_embeds": torch.zeros(1, dims.pooled_dim).bfloat16(),
        "scaler": None, "epoch": 12, "best_val_loss": 1 / 3, "config": CONFIG, "use_lora": True,
    }  # fmt: skip
    if optimizer:
        made["optimizer"] = {"state": state, "param_groups": [group]}
    return {key: made[key] for key in KEYS if key in made}


def saved(values: object, path: Path) -> Path:
    """`torch.save`, as the published code does it."""
    torch.save(values, path)
    return path


def difference(a: object, b: object, where: str = "") -> str:
    """The first place where two trees of dicts, lists, tensors and plain values differ in type or
    in any bit; or "".
    """
    if type(a) is not type(b):
        return f"{where}: {type(a)} and {type(b)}"
    if isinstance(a, dict):
        if list(a) != list(b):
            return f"{where}: keys {list(a)} and {list(b)}"
        return next((d for key in a if (d := difference(a[key], b[key], f"{where}/{key}"))), "")
    if isinstance(a, list | tuple):
        pairs = enumerate(zip(a, b, strict=True))
        return next((d for i, (x, y) in pairs if (d := difference(x, y, f"{where}/{i}"))), "")
    if isinstance(a, torch.Tensor):
        alike = a.dtype == b.dtype and a.shape == b.shape
        equal = alike and torch.equal(*(t.flatten().contiguous().view(torch.uint8) for t in (a, b)))
        return (
            ""
            if equal
            else f"{where}: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}, or their bits"
        )
    return "" if a == b else f"{where}: {a!r} and {b!r}"
