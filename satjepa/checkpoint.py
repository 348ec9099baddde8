"""Checkpoints: a folder of safetensors and JSON, replaced as one piece, never a pickle.

    <folder>/model.safetensors       what is trained, target encoder, weight average; its header says what made it
    <folder>/optimizer.safetensors   optimiser moments by parameter name, states of the random generators
    <folder>/state.json              step, sampler position, sha256 of the two files beside it

A save writes `<folder>.tmp`, flushes it to the disk, reads it back and verifies it; only then is the old folder renamed
to `<folder>.previous`, the new one put in its place, and the old one removed. A kill at any moment leaves a checkpoint
that `load` opens: `<folder>`, or `<folder>.previous` when the kill fell between the two renames.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from satjepa.models.satjepa import SatJepa

FORMAT = "satjepa-1"
UNKNOWN = "unknown"  # split and backbone of an imported checkpoint, which says neither
Tensors, Json = dict[str, Tensor], dict[str, Any]
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
TRAINING_CODE = ("models/satjepa", "models/jepa", "models/forecaster", "models/adapter", "models/backbone")
TRAINING_CODE += tuple(f"models/published/{name}" for name in ("adapter", "coarse", "forecaster", "model", "optim"))
TRAINING_CODE += ("masks", "models/joint", "models/layers", "flow", "losses", "optim", "schedules")
TRAINING_CODE += ("train", "train_state")
# What changes no trained weight; of another split its hash tells.
NOT_TRAINING = ("sample.", "eval.", "ablate.", "published.", "train.log_every", "train.checkpoint_every")
NOT_TRAINING += ("data.root", "data.split", "data.on_bad_scene", "data.val_", "data.test_")
ABSENT = {"baselines": {}, "train": {"jepa_share": 0.0}, "data": {"white": None}}  # two are younger than the format


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or made by another run; the message says what differs and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """What one folder holds.

    tensors: name -> tensor on the CPU. header: `format` and what `make_header` made. state: `step` and what else the
    writer noted. optimizer: moments and random generators as tensors, if asked for.
    """

    folder: Path
    tensors: Tensors
    header: Json
    state: Json
    optimizer: Tensors = field(default_factory=dict)


def save(folder: str | Path, tensors: Tensors, header: Json, state: Json, optimizer: Tensors) -> Path:
    """Write a checkpoint as one piece; until the new one is complete and verified the old one stays.

    Equal contents give equal bytes: the header is one metadata entry, because safetensors writes several in random
    order. Raises whatever the disk raises; the temporary folder is removed then, and the old checkpoint is untouched.
    """
    folder = Path(folder)
    temporary, previous = _beside(folder, "tmp"), _beside(folder, "previous")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists() and previous.exists():  # an earlier save was killed between its two renames
        os.replace(previous, folder)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        _write(temporary, tensors, {"format": FORMAT, **header}, state, optimizer)
        _verified(temporary)
        _swap(temporary, folder, previous)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(previous, ignore_errors=True)
    return folder


def _write(folder: Path, tensors: Tensors, header: Json, state: Json, optimizer: Tensors) -> None:
    from safetensors.torch import save as to_bytes

    folder.mkdir()
    blobs = {
        MODEL: to_bytes(_plain(tensors), {"satjepa": json.dumps(header, sort_keys=True)}),
        OPTIMIZER: to_bytes(_plain(optimizer)),
    }
    sums = {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}
    blobs[STATE] = (json.dumps({**state, "sha256": sums}, indent=1) + "\n").encode()
    for name, blob in blobs.items():
        with open(folder / name, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
    _sync_folder(folder)


def _swap(new: Path, folder: Path, previous: Path) -> None:
    """Put `new` in the place of `folder`; a rename that fails puts the old one back."""
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        os.replace(folder, previous)
    try:
        os.replace(new, folder)
    except BaseException:
        if previous.exists():
            os.replace(previous, folder)
        raise
    _sync_folder(folder.parent)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f"{folder.name}.{what}")


def _plain(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(folder: str | Path) -> None:
    """Delete a checkpoint and what an interrupted save may have left beside it."""
    for path in (Path(folder), _beside(Path(folder), "tmp"), _beside(Path(folder), "previous")):
        shutil.rmtree(path, ignore_errors=True)


def exists(folder: str | Path) -> bool:
    """Whether `load` would find a checkpoint there (a complete one, or the one an interrupted save left beside it)."""
    return _present(Path(folder)) is not None


def load(folder: str | Path, with_optimizer: bool = False) -> Checkpoint:
    """Read a checkpoint and check it against its own sums.

    Raises CheckpointError where there is none, where a file is damaged (names it), or where it is not one of ours.
    """
    asked, found = Path(folder), _present(Path(folder))
    if asked.is_file():
        raise CheckpointError(f"{asked} is a file; a satjepa checkpoint is a folder with {MODEL} and {STATE}")
    if found is None:
        has = f"it holds {sorted(p.name for p in asked.iterdir())[:5]}" if asked.is_dir() else "no such folder"
        raise CheckpointError(f"no checkpoint at {asked} ({has})")
    return _verified(found, with_optimizer)


def read_header(folder: str | Path) -> Json:
    """The header alone (config, hashes), without reading the tensors. Raises CheckpointError as `load` does."""
    from safetensors import SafetensorError, safe_open

    found = _present(Path(folder))
    if found is None:
        raise CheckpointError(f"no checkpoint at {folder}")
    try:
        with safe_open(found / MODEL, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("satjepa", "{}"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{found / MODEL} cannot be read: {error}") from error
    if header.get("format") != FORMAT:
        has = header.get("format")
        raise CheckpointError(f"{found / MODEL} is not a satjepa checkpoint: format {has!r}, expected {FORMAT!r}")
    return header


def _present(folder: Path) -> Path | None:
    return next((f for f in (folder, _beside(folder, "previous")) if (f / STATE).is_file()), None)


def _verified(folder: Path, with_optimizer: bool = True) -> Checkpoint:
    from safetensors.torch import load as from_bytes

    try:
        state = json.loads((folder / STATE).read_text())
    except ValueError as error:
        raise CheckpointError(f"{folder / STATE} is damaged: {error}") from error
    parts = []
    for name in (MODEL, OPTIMIZER) if with_optimizer else (MODEL,):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is not complete: {name} is missing")
        blob = (folder / name).read_bytes()
        if hashlib.sha256(blob).hexdigest() != state.get("sha256", {}).get(name):
            raise CheckpointError(f"{folder / name} is damaged: its sha256 is not the one in {STATE}")
        parts.append(from_bytes(blob))
    return Checkpoint(folder, parts[0], read_header(folder), state, *parts[1:])


def make_header(config: Json, split: str, backbone: str) -> Json:
    """Header of a checkpoint from `Params.as_dict()` and the sha256 of the split and of the frozen backbone.

    `config` is kept whole but for its lists of ablations, published arms and baselines, which have no part in this run:
    editing those must not change the bytes of a checkpoint that is made again.
    """
    config = json.loads(json.dumps(config))  # tuples as JSON gives them back
    config.pop("baselines", None)
    config["ablate"] = {"steps": config["train"]["steps"], "seeds": [config["seed"]], "arms": {}}
    config["published"] = {"steps": config["train"]["steps"], "arms": {}}
    digest = hashlib.sha256(json.dumps(_compared(config), sort_keys=True).encode()).hexdigest()
    return {"config": config, "config_digest": digest, "code": code_digest(), "split": split, "backbone": backbone}


def settings_of(header: Json) -> Json:
    """What `satjepa.config.from_dict` takes: the settings of a header, with those that it has not."""
    return header["config"] | {name: values | header["config"].get(name, {}) for name, values in ABSENT.items()}


def _compared(config: Json) -> Json:
    """The settings that decide the trained weights, by dotted key."""
    return {key: value for key, value in _flatten(config).items() if not key.startswith(NOT_TRAINING)}


def differences(found: Json, mine: Json) -> list[str]:
    """One line for each training setting, split or backbone in which two headers differ; empty for one and the same."""
    a, b = (_compared(settings_of(header)) for header in (found, mine))
    lines = [
        f"{key}: {a.get(key, '(absent)')} in the checkpoint, {b.get(key, '(absent)')} here"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key) or (key in a) != (key in b)
    ]
    for key in ("split", "backbone"):
        if found.get(key) != mine.get(key):
            lines.append(f"{key} hash: {str(found.get(key))[:12]} in the checkpoint, {str(mine.get(key))[:12]} here")
    return lines


def require_same(checkpoint: Checkpoint, header: Json) -> None:
    """Raise CheckpointError, listing every difference, unless the checkpoint is of the run that `header` describes."""
    lines = differences(checkpoint.header, header)
    if lines:
        advice = "Restore these settings to go on with it; remove it, or do not resume, to begin anew."
        raise CheckpointError("\n  ".join([f"{checkpoint.folder} was made by another run:", *lines]) + f"\n{advice}")


def restore(found: Checkpoint, model: SatJepa) -> SatJepa:
    """Give a model built from `found.header["config"]` its weights; CheckpointError if it has another backbone.

    An imported checkpoint may bring fixed tables along, and does not say for which weights of its backbone it is; its
    captions were embedded as the published code does (`reads_padding`).
    """
    known, path = found.header["backbone"] != UNKNOWN, found.header["config"]["backbone"]["path"]
    if known and (here := hash_module(model.backbone, frozen_only=True)) != found.header["backbone"]:
        raise CheckpointError(
            f"{found.folder} was trained on the backbone {found.header['backbone'][:12]}; what lies in {path} is"
            f" {here[:12]}: restore that backbone, or train again"
        )
    tensors, kept = dict(found.tensors), model.state().keys()
    for name, table in model.named_buffers():
        if name in tensors and name not in kept:
            table.copy_(tensors.pop(name))
    try:
        model.load_state(tensors)
    except (ValueError, RuntimeError) as error:
        lines = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{found.folder} does not fit the model on the backbone {path}: {lines}") from error
    model.reads_padding = not known
    return model.eval()


def _flatten(tree: Json, prefix: str = "") -> Json:
    flat: Json = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def hash_module(module: nn.Module, frozen_only: bool = False) -> str:
    """sha256 over name, dtype, shape and bytes of every parameter and buffer (or of the frozen parameters only).

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


def code_digest(modules: Iterable[str] = TRAINING_CODE) -> str:
    """sha256 over the source of the modules that decide what training makes of its data: model, losses, loop.

    It stands in place of the git revision (that is in run.json), which any commit of text or results would change, and
    with it the bytes of a checkpoint that is made again.
    """
    digest = hashlib.sha256()
    for name in modules:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()
