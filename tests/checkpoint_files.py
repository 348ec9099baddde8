"""A small checkpoint whose parts all hold one value, for the tests of saving and of provenance."""

import json
from pathlib import Path

import torch

from satjepa.training import checkpoint, provenance

CONFIG = {
    "seed": 0,
    "data": {"root": "data", "patch": 64},
    "train": {"steps": 9, "lr": 1e-3, "log_every": 5, "target_ema": (0.9, 1.0)},
    "sample": {"steps": 20},
    "eval": {"batch": 8},
    "seeds": [0],
    "arms": {"full": {}},
}


def header(split: str = "s" * 64, backbone: str = "b" * 64, **dotted: object) -> dict:
    config = json.loads(json.dumps(CONFIG))
    for key, value in dotted.items():
        section, name = key.split("__")
        config.setdefault(section, {})[name] = value
    return provenance.make_header(config, split, backbone)


def write(folder: Path, value: float) -> Path:
    tensors = {
        "w": torch.full((3, 2), value),
        "half": torch.full((4,), value, dtype=torch.bfloat16),
    }
    optimizer = {"w/exp_avg": torch.full((3, 2), value)}
    return checkpoint.save(folder, tensors, header(), {"step": int(value)}, optimizer)


def consistent(folder: Path) -> float:
    """The one value every part of a loaded checkpoint must have."""
    found = checkpoint.load(folder, with_optimizer=True)
    tensors = (found.tensors["w"], found.optimizer["w/exp_avg"])
    values = {found.state["step"], *(v for t in tensors for v in t.unique().tolist())}
    assert len(values) == 1 and found.tensors["half"].dtype == torch.bfloat16
    return values.pop()
