"""EarthDial's weights under the names of transformers: renamed, and the vision transformer's fused
qkv cut into three. Names and shapes are compared with the model before anything is written, and
tensors are read one at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from satjepa.captions.earthdial_config import CheckpointRefused, read_json
from satjepa.paths import replaced, write_text

if TYPE_CHECKING:
    from transformers import InternVLConfig

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARD_BYTES = 10**9  # of a file that is written: what is held in memory at once
SHOWN = 5  # names in an error; the others are counted

# EarthDial's beginning of a name -> that of transformers
PREFIXES = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.language_model.",
    "mlp1.0.": "model.multi_modal_projector.layer_norm.",
    "mlp1.1.": "model.multi_modal_projector.linear_1.",
    "mlp1.3.": "model.multi_modal_projector.linear_2.",
    "vision_model.embeddings.class_embedding": "model.vision_tower.embeddings.cls_token",
    "vision_model.embeddings.position_embedding": (
        "model.vision_tower.embeddings.position_embeddings"
    ),
    "vision_model.embeddings.patch_embedding.": (
        "model.vision_tower.embeddings.patch_embeddings.projection."
    ),
}
LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.(.+)")
IN_LAYER = {  # the same, below a layer of the vision transformer
    "attn.proj.": "attention.projection_layer.",
    "attn.q_norm.": "attention.q_norm.",
    "attn.k_norm.": "attention.k_norm.",
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
    "mlp.": "mlp.",
}
FUSED = "attn.qkv."

Shape = tuple[int, ...]


def native_names(key: str) -> tuple[str, ...]:
    """What a tensor of EarthDial is called in transformers: one name; three, for q, k and v, of
    equal blocks of its rows; none for a key that EarthDial's layout does not have.
    """
    match = LAYER.fullmatch(key)
    if match is None:
        return _renamed(key, PREFIXES)
    number, rest = match.groups()
    layer = f"model.vision_tower.encoder.layer.{number}."
    if rest.startswith(FUSED):
        leaf = rest.removeprefix(FUSED)
        return tuple(f"{layer}attention.{part}_proj.{leaf}" for part in "qkv")
    return tuple(layer + name for name in _renamed(rest, IN_LAYER))


def _renamed(key: str, prefixes: Mapping[str, str]) -> tuple[str, ...]:
    for theirs, ours in prefixes.items():
        if key.startswith(theirs):
            return (ours + key.removeprefix(theirs),)
    return ()


def model_shapes(config: InternVLConfig) -> dict[str, Shape]:
    """Name and shape of every tensor of the model that `config` describes, without its memory."""
    from transformers import InternVLForConditionalGeneration

    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, by its index or the one file; CheckpointRefused where
    one is missing.
    """
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        names = sorted(set(index["weight_map"].values()))
    elif (folder / SINGLE).is_file():
        names = [SINGLE]
    else:
        raise CheckpointRefused(
            f"{folder} has neither {INDEX} nor {SINGLE}: weights are read as safetensors alone"
        )
    lacking = [name for name in names if not (folder / name).is_file()]
    if lacking:
        raise CheckpointRefused(
            f"{folder} has no {_list(lacking)}, which {INDEX} names: download it again"
        )
    return [folder / name for name in names]


def require_fitting(files: list[Path], wanted: Mapping[str, Shape], tied: bool) -> None:
    """CheckpointRefused where the tensors of `files` are not those of the model: one is missing,
    left over, or of another shape. Headers alone are read.

    tied: the output layer may be left out, as it is the embeddings.
    """
    unknown = []
    wrong = []
    present: set[str] = set()
    for key, shape in _headers(files):
        names = native_names(key)
        if not names or not wanted.keys() >= set(names):
            unknown.append(key)
            continue
        present |= set(names)
        rows, *others = wanted[names[0]]
        fitting = (rows * len(names), *others)
        if shape != fitting:
            wrong.append(f"{key} is {shape}, by config.json it would be {fitting}")
    missing = sorted(wanted.keys() - present - ({"lm_head.weight"} if tied else set()))
    problems = {
        "has tensors of a wrong shape": wrong,
        "has tensors that the model of its config.json does not": unknown,
        "lacks tensors (names of transformers)": missing,
    }
    faults = [f"{fault}: {_list(names)}" for fault, names in problems.items() if names]
    if faults:
        raise CheckpointRefused(
            f"{files[0].parent} {'; it '.join(faults)}. Nothing was written; is config.json that "
            "of these weights?"
        )


def _list(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _headers(files: list[Path]) -> Iterator[tuple[str, Shape]]:
    """Key and shape of each tensor; CheckpointRefused for a file that cannot be read, and for a key
    that stands in two.
    """
    from safetensors import SafetensorError, safe_open

    owner: dict[str, Path] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as shard:
                shapes = {key: tuple(shard.get_slice(key).get_shape()) for key in shard.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise CheckpointRefused(
                f"{file} is not complete ({error}): download it again"
            ) from error
        for key, shape in shapes.items():
            if key in owner:
                raise CheckpointRefused(f"{key} stands in {owner[key].name} and in {file.name}")
            owner[key] = file
            yield key, shape


def native_tensors(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under its name in transformers, as it is stored, one read at a time."""
    from safetensors import safe_open

    for file in files:
        with safe_open(file, "pt") as shard:
            for key in sorted(shard.keys()):
                names = native_names(key)
                blocks = shard.get_tensor(key).chunk(len(names))
                for name, block in zip(names, blocks, strict=True):
                    yield name, block.clone()  # not a view, which would be stored as a whole


def write_weights(files: list[Path], folder: Path, total: int, progress: bool = True) -> None:
    """Write the tensors of `files` into files of at most about 1 GB, and their index.

    total: number of tensors, for the progress bar.
    """
    from tqdm import tqdm

    places: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    held = 0
    written = 0
    tensors = native_tensors(files)
    for name, tensor in tqdm(tensors, "tensors", total, unit="tensor", disable=not progress):
        if shard and held + tensor.nbytes > SHARD_BYTES:
            _write_shard(folder, shard, places)
            held = 0
        shard[name] = tensor
        held += tensor.nbytes
        written += tensor.nbytes
    _write_shard(folder, shard, places)
    index = {"metadata": {"total_size": written}, "weight_map": dict(sorted(places.items()))}
    write_text(folder / INDEX, json.dumps(index, indent=1) + "\n")


def _write_shard(folder: Path, shard: dict[str, Tensor], places: dict[str, str]) -> None:
    """Write and empty a shard, and note where its tensors are."""
    from safetensors.torch import save_file

    name = f"model-{len(set(places.values())) + 1:05d}.safetensors"
    with replaced(folder / name, sync=True) as part:
        save_file(shard, part, {"format": "pt"})
    places |= dict.fromkeys(shard, name)
    shard.clear()
