"""What made a checkpoint: its header, in what two runs differ, hashes of weights and of code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from satjepa.training.checkpoint import AVERAGED, UNKNOWN, Checkpoint, CheckpointError, Json

if TYPE_CHECKING:
    from satjepa.models.satjepa import SatJepa

TRAINING_CODE = ("models", "training")  # folders whose code decides what training makes of its data
# Sections of checkpoints that are older than `arms` and `seeds`; they decide no weight.
OLD_SECTIONS = ("ablate", "published")
# Sections of params.yaml that decide no weight: a run's checkpoint does not hold them.
NOT_OF_A_RUN = ("seeds", "arms", "baselines", "pretrain", "sample", "eval", "vlm", "writer")
# Keys of the other sections that decide none; of another split its hash tells.
NOT_COMPARED = (
    *(f"{section}." for section in (*NOT_OF_A_RUN, *OLD_SECTIONS)),
    "train.log_every", "train.checkpoint_every", "train.workers", "train.compile",
    "train.checkpointing",
    "data.root", "data.split", "data.on_bad_scene", "data.val_", "data.test_",
)  # fmt: skip
# What the absence of keys that are younger than the format means.
ABSENT = {
    "train": {
        "jepa_share": 0.0,
        "lesson": {"windows": 1, "steps": 0, "batch": 1},
        "workers": 0,
        "compile": "auto",
        "checkpointing": False,
        "true_captions": 0.0,
        "quarter_dropout": 0.0,
    },
    "data": {"white": None},
    "captions": {"lengths": None},
    "model": {"context_merge": 1, "reader": None},
    "loss": {"layout": 0.0},
}


def make_header(config: Json, split: str, backbone: str, sample: Json | None = None) -> Json:
    """Header of a checkpoint from `Params.as_dict()` and the sha256 of the split and of the frozen
    backbone.

    Only what decides the weights is kept of `config`: editing ablations, baselines or the sampler
    must not change the bytes of a checkpoint that is made again. sample: settings of the sampler
    that come with the weights all the same, as those of an imported checkpoint do.
    """
    config = json.loads(json.dumps(config))  # tuples as JSON gives them back
    config = {key: value for key, value in config.items() if key not in NOT_OF_A_RUN}
    config["train"].pop("workers", None)
    if sample is not None:
        config["sample"] = sample
    digest = hashlib.sha256(json.dumps(_compared(config), sort_keys=True).encode()).hexdigest()
    return {
        "config": config,
        "config_digest": digest,
        "code": code_digest(),
        "split": split,
        "backbone": backbone,
    }


def settings_of(header: Json, others: Json) -> Json:
    """What `satjepa.config.from_dict` takes: the settings of a header, completed.

    others: `Params.as_dict()` of today, from which the sections come that a run's header has not,
    the sampler's above all. Keys that are younger than the checkpoint get what their absence meant.
    """
    config = dict(header["config"])
    for section in OLD_SECTIONS:
        config.pop(section, None)
    for section, values in ABSENT.items():
        config[section] = values | config.get(section, {})
    if config["train"].get("precision") == "no":  # the older word
        config["train"]["precision"] = "float32"
    if "sample" in config:
        config["sample"] = others["sample"] | config["sample"]
    return {section: others[section] for section in NOT_OF_A_RUN} | config


def _compared(config: Json) -> Json:
    """The settings that decide the trained weights, by dotted key."""
    flat = _flatten(config)
    idle = list(NOT_COMPARED)
    if flat.get("model.reader", flat.get("model.reader.dim")) is None:
        idle += ["train.lesson.", "loss.layout"]
    elif flat.get("train.lesson.steps") == 0:
        idle += ["train.lesson.windows", "train.lesson.batch"]
    return {key: value for key, value in flat.items() if not key.startswith(tuple(idle))}


def differences(found: Json, mine: Json) -> list[str]:
    """One line for each training setting, split or backbone in which two headers differ; empty for
    one and the same.
    """
    nothing: Json = {section: {} for section in NOT_OF_A_RUN}
    a, b = (_compared(settings_of(header, nothing)) for header in (found, mine))
    lines = [
        f"{key}: {a.get(key, '(absent)')} in the checkpoint, {b.get(key, '(absent)')} here"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key) or (key in a) != (key in b)
    ]
    for key in ("split", "backbone"):
        if found.get(key) != mine.get(key):
            lines.append(
                f"{key} hash: {str(found.get(key))[:12]} in the checkpoint, "
                f"{str(mine.get(key))[:12]} here"
            )
    return lines


def require_same(checkpoint: Checkpoint, header: Json) -> None:
    """Raise CheckpointError, listing every difference, unless the checkpoint is of the run that
    `header` describes.
    """
    lines = differences(checkpoint.header, header)
    if lines:
        advice = (
            "Restore these settings to go on with it; remove it, or do not resume, to begin anew."
        )
        raise CheckpointError(
            "\n  ".join([f"{checkpoint.folder} was made by another run:", *lines]) + f"\n{advice}"
        )


def restore(found: Checkpoint, model: SatJepa) -> SatJepa:
    """Give a model built from `found.header["config"]` its weights; CheckpointError if it has
    another backbone.

    An imported checkpoint may bring fixed tables along, and does not say for which weights of its
    backbone it is; its captions were embedded as the published code does (`reads_padding`).
    """
    known = found.header["backbone"] != UNKNOWN
    path = found.header["config"]["backbone"]["path"]
    if (
        known
        and (here := hash_module(model.backbone, frozen_only=True)) != found.header["backbone"]
    ):
        raise CheckpointError(
            f"{found.folder} was trained on the backbone {found.header['backbone'][:12]}; what "
            f"lies in {path} is"
            f" {here[:12]}: restore that backbone, or train again"
        )
    tensors = dict(found.tensors)
    kept = model.state().keys()
    for name, table in model.named_buffers():
        if name in tensors and name not in kept:
            table.copy_(tensors.pop(name))
    only_averages = found.header.get("weights") == AVERAGED
    try:
        (model.load_averages if only_averages else model.load_state)(tensors)
    except (ValueError, RuntimeError) as error:
        lines = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{found.folder} does not fit the model on the backbone {path}: {lines}"
        ) from error
    model.reads_padding = not known
    return model.eval()


def _flatten(tree: Json, prefix: str = "") -> Json:
    flat: Json = {}
    for key, value in tree.items():
        flat |= (
            _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def hash_module(module: nn.Module, frozen_only: bool = False) -> str:
    """sha256 over name, dtype, shape and bytes of every parameter and buffer (or of the frozen
    parameters only).

    Two equal hashes before and after training prove that nothing in the module changed.
    """
    kept: Iterable[tuple[str, Tensor]] = module.state_dict().items()
    if frozen_only:
        kept = ((name, p) for name, p in module.named_parameters() if not p.requires_grad)
    digest = hashlib.sha256()
    for name, tensor in sorted(kept):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def code_digest(parts: Iterable[str] = TRAINING_CODE) -> str:
    """sha256 over the source of the files and folders that decide what training makes of its data:
    model, losses, loop.

    It stands in place of the git revision (that is in run.json), which any commit of text or
    results would change, and with it the bytes of a checkpoint that is made again.
    """
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for part in parts for path in _sources(package / part)):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources(path: Path) -> list[Path]:
    return [*path.rglob("*.py")] if path.is_dir() else [path]
