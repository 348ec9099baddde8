"""From params.yaml and the files of `artifacts/` to the objects the notebooks work with: data, batches, models.

Everything here is glue: it holds no numbers of its own and no idea that is not in the module it calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from satjepa.config import Params
from satjepa.data.cube import open_cube
from satjepa.data.pairs import PairDataset, collate
from satjepa.data.splits import Split, UnknownSplit
from satjepa.paths import root

if TYPE_CHECKING:
    from satjepa.captions.text import TextEncoders
    from satjepa.checkpoint import Checkpoint
    from satjepa.models.backbone import Backbone
    from satjepa.models.forecaster import Caption
    from satjepa.models.joint import JointModel

ARTIFACTS = "artifacts"


def local(path: str) -> str:
    """A path of params.yaml: as it is if absolute or a hub id, else below the repository root where it exists there."""
    return str(root() / path) if (root() / path).exists() else path


def cubes_of(preset: str) -> list[Any]:
    """The opened cubes of a preset, in the order of their names."""
    return [open_cube(path) for path in sorted((root() / ARTIFACTS / "cubes" / preset).glob("*.zarr"))]


def open_split() -> Split:
    """The split file of the data stage."""
    return Split.load(root() / ARTIFACTS / "split.json")


def dataset(
    params: Params, part: str, preset: str | None = None, *, text: bool = True, latents: bool = False, emb: bool = True
) -> PairDataset:
    """The samples of a part ("train", "val", "test") of a preset (default: the first), with captions and latents if
    asked for; without `emb`, AlphaEarth is neither read nor decoded and counts as masked.

    Training windows overlap and are turned and mirrored; the others are neither. Truth layers come along outside
    training.
    """
    from satjepa.captions.table import read_table
    from satjepa.captions.text import TextStore
    from satjepa.models.latents import LatentStore

    d, home, training = params.data, root() / ARTIFACTS, part == "train"
    words = {"captions": read_table(home / "captions.parquet"), "text": TextStore.open(home / "text")} if text else {}
    cubes = cubes_of(preset or d.presets[0])
    return PairDataset(
        cubes if emb else [cube.drop_vars("emb", errors="ignore") for cube in cubes],
        open_split().part(part),
        d.patch,
        d.stride,
        d.history,
        augment=training,
        truth=not training,
        max_length=params.captions.max_length,
        latents=LatentStore(home / "latents") if latents else None,
        **words,
    )


def spread_evenly(count: int, limit: int) -> list[int]:
    """`limit` of the numbers 0 .. count - 1 at even distances, all of them where `limit` is 0 or not below `count`."""
    return list(range(count)) if limit == 0 or limit >= count else [i * count // limit for i in range(limit)]


def batches(data: PairDataset, size: int, limit: int = 0) -> Iterator[dict[str, Any]]:
    """Batches of `size` in order, of all samples or of `limit` spread evenly over them."""
    chosen = spread_evenly(len(data), limit)
    for start in range(0, len(chosen), size):
        yield collate([data[i] for i in chosen[start : start + size]])


def the_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_backbone(params: Params, lora: bool = True) -> Backbone:
    """The frozen backbone of params.yaml, with its LoRA unless told otherwise, on the CPU."""
    from satjepa.models.backbone import Backbone

    b = params.backbone
    backbone = Backbone.from_pretrained(local(b.path), b.revision, getattr(torch, b.dtype))
    return backbone.add_lora(b.lora_rank, b.lora_alpha, b.lora_targets) if lora else backbone


def load_text_encoders(params: Params) -> TextEncoders:
    """The frozen text encoders of the backbone, in its `dtype`, on the GPU if there is one."""
    from satjepa.captions.text import TextEncoders

    b = params.backbone
    return TextEncoders.from_pretrained(local(b.path), b.revision, the_device(), getattr(torch, b.dtype))


def embed_texts(params: Params, texts: list[str]) -> list[Caption]:
    """Embeddings of some texts by the backbone's text encoders, each float32 on the CPU, whatever those are."""
    rows = zip(*load_text_encoders(params).embed_batch(texts, params.captions.max_length), strict=True)
    return [{"hidden": h.float().cpu(), "mask": m.cpu(), "pooled": p.float().cpu()} for h, m, p in rows]


def build_model(params: Params, seed: int | None = None) -> JointModel:
    """A new model on the backbone of params.yaml; equal seeds give equal weights."""
    from safetensors.torch import load_file

    from satjepa.models.published.model import PublishedSatJepa
    from satjepa.models.satjepa import SatJepa

    torch.manual_seed(params.seed if seed is None else seed)
    backbone = load_backbone(params)
    (empty,) = embed_texts(params, [""])
    if params.model.variant == "published":
        return PublishedSatJepa(params, backbone, empty)
    layout = params.backbone.layout and load_file(Path(local(params.backbone.layout)) / "layout.safetensors")
    return SatJepa(params, backbone, empty, layout)


def load_model(folder: str | Path) -> JointModel:
    """A trained model from its checkpoint folder, on the GPU if there is one, with `trained_on` set to the split that
    its run must not be scored on.
    """
    from satjepa import checkpoint

    found = checkpoint.load(folder)
    return from_checkpoint(found, the_device(), trained_on(found))


def from_checkpoint(
    found: Checkpoint, device: str | torch.device, split: Split | UnknownSplit | None = None,
    backbone: str | None = None, sample: Mapping[str, Any] | None = None,
) -> JointModel:  # fmt: skip
    """The trained model of a checkpoint on a device, in evaluation mode, built with the settings in its header.

    split: what `trained_on` is set to; None lets nothing be scored. backbone: a diffusers folder or hub id, instead of
    the checkpoint's own. sample: other values for its `sample` section, where not None.

    Raises ConfigError for a value that does not fit, CheckpointError for another backbone than it was trained on.
    """
    from satjepa import checkpoint
    from satjepa.config import from_dict
    from satjepa.typed import with_keys

    changed = {f"sample.{key}": value for key, value in (sample or {}).items() if value is not None}
    changed |= {"backbone.path": backbone} if backbone else {}
    config = with_keys(Params, checkpoint.settings_of(found.header), changed)
    found = replace(found, header=found.header | {"config": config})  # an error names the backbone that was taken
    model = checkpoint.restore(found, build_model(from_dict(config)))
    model.trained_on = split or UnknownSplit()
    return model.to(device)


def trained_on(found: Checkpoint) -> Split | UnknownSplit:
    """The split of the run that made a checkpoint; for an imported one, a guard that lets nothing be scored.

    Raises CheckpointError where artifacts/split.json is another split, FileNotFoundError where there is none.
    """
    from satjepa import checkpoint

    if found.header["split"] == checkpoint.UNKNOWN:
        return UnknownSplit()
    split = open_split()
    if split.sha256 != found.header["split"]:
        raise checkpoint.CheckpointError(
            f"{found.folder} was trained on another split than artifacts/split.json: its scores would leak"
        )
    return split
