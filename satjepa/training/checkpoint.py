"""Checkpoints: a folder of safetensors and JSON, replaced as one piece, never a pickle.

    <folder>/model.safetensors       what is trained, target encoder, weight average; its header
                                     says what made it
    <folder>/optimizer.safetensors   optimiser moments by parameter name, states of the random
                                     generators; not there in an exported model
                                     (`satjepa.training.export`)
    <folder>/state.json              step, sampler position, sha256 of the files beside it

A save writes `<folder>.tmp`, flushes it to the disk, reads it back and verifies it; only then is
the old folder renamed to `<folder>.previous`, the new one put in its place, and the old one
removed. A kill at any moment leaves a checkpoint that `load` opens: `<folder>`, or
`<folder>.previous` when the kill fell between the two renames.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from satjepa.paths import to_disk

FORMAT = "satjepa-1"
UNKNOWN = "unknown"  # split and backbone of an imported checkpoint, which says neither
Tensors = dict[str, Tensor]
Json = dict[str, Any]
MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
AVERAGED = "averaged"  # value of the header's "weights" where these are all there is


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or made by another run; the message says what differs and
    what to do.
    """


@dataclass(frozen=True)
class Checkpoint:
    """What one folder holds.

    tensors: name -> tensor on the CPU. header: `format` and what `make_header` made. state: `step`
    and what else the writer noted. optimizer: moments and random generators as tensors, if asked
    for.
    """

    folder: Path
    tensors: Tensors
    header: Json
    state: Json
    optimizer: Tensors = field(default_factory=dict)


def save(
    folder: str | Path, tensors: Tensors, header: Json, state: Json, optimizer: Tensors | None
) -> Path:
    """Write a checkpoint as one piece; until the new one is complete and verified the old one
    stays.

    optimizer: None writes no file of it, for weights that no training goes on from.
    Equal contents give equal bytes: the header is one metadata entry, because safetensors writes
    several in random order. Raises whatever the disk raises; the temporary folder is removed then,
    and the old checkpoint is untouched.
    """
    folder = Path(folder)
    temporary = _beside(folder, "tmp")
    previous = _beside(folder, "previous")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (
        not folder.exists() and previous.exists()
    ):  # an earlier save was killed between its two renames
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


def _write(
    folder: Path, tensors: Tensors, header: Json, state: Json, optimizer: Tensors | None
) -> None:
    from safetensors.torch import save as to_bytes

    folder.mkdir()
    blobs = {MODEL: to_bytes(_plain(tensors), {"satjepa": json.dumps(header, sort_keys=True)})}
    if optimizer is not None:
        blobs[OPTIMIZER] = to_bytes(_plain(optimizer))
    sums = {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}
    blobs[STATE] = (json.dumps({**state, "sha256": sums}, indent=1) + "\n").encode()
    for name, blob in blobs.items():
        (folder / name).write_bytes(blob)
        to_disk(folder / name)
    to_disk(folder)


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
    to_disk(folder.parent)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f"{folder.name}.{what}")


def _plain(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def remove(folder: str | Path) -> None:
    """Delete a checkpoint and what an interrupted save may have left beside it."""
    for path in (Path(folder), _beside(Path(folder), "tmp"), _beside(Path(folder), "previous")):
        shutil.rmtree(path, ignore_errors=True)


def exists(folder: str | Path) -> bool:
    """Whether `load` would find a checkpoint there (a complete one, or the one an interrupted save
    left beside it).
    """
    return _present(Path(folder)) is not None


def load(folder: str | Path, with_optimizer: bool = False) -> Checkpoint:
    """Read a checkpoint and check it against its own sums.

    Raises CheckpointError where there is none, where a file is damaged (names it), or where it is
    not one of ours.
    """
    asked = Path(folder)
    found = _present(Path(folder))
    if asked.is_file():
        raise CheckpointError(
            f"{asked} is a file; a satjepa checkpoint is a folder with {MODEL} and {STATE}"
        )
    if found is None:
        raise _none_at(asked)
    return _verified(found, with_optimizer)


def read_header(folder: str | Path) -> Json:
    """The header alone (config, hashes), without reading the tensors. Raises CheckpointError as
    `load` does.
    """
    from safetensors import SafetensorError, safe_open

    found = _present(Path(folder))
    if found is None:
        raise _none_at(Path(folder))
    try:
        with safe_open(found / MODEL, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("satjepa", "{}"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{found / MODEL} cannot be read: {error}") from error
    if header.get("format") != FORMAT:
        has = header.get("format")
        raise CheckpointError(
            f"{found / MODEL} is not a satjepa checkpoint: format {has!r}, expected {FORMAT!r}"
        )
    return header


def _none_at(folder: Path) -> CheckpointError:
    has = "no such folder"
    if folder.is_dir():
        has = f"it holds {sorted(p.name for p in folder.iterdir())[:5]}"
    return CheckpointError(f"no checkpoint at {folder} ({has})")


def _present(folder: Path) -> Path | None:
    return next((f for f in (folder, _beside(folder, "previous")) if (f / STATE).is_file()), None)


def _verified(folder: Path, with_optimizer: bool = True) -> Checkpoint:
    from safetensors.torch import load as from_bytes

    try:
        state = json.loads((folder / STATE).read_text())
    except ValueError as error:
        raise CheckpointError(f"{folder / STATE} is damaged: {error}") from error
    parts = []
    sums = state.get("sha256", {})
    names = (MODEL, OPTIMIZER) if with_optimizer and OPTIMIZER in sums else (MODEL,)
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is not complete: {name} is missing")
        blob = (folder / name).read_bytes()
        if hashlib.sha256(blob).hexdigest() != sums.get(name):
            raise CheckpointError(
                f"{folder / name} is damaged: its sha256 is not the one in {STATE}"
            )
        parts.append(from_bytes(blob))
    return Checkpoint(folder, parts[0], read_header(folder), state, *parts[1:])
