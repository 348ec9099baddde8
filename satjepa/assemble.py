"""From params.yaml and the files of `artifacts/` to the objects the notebooks work with: data,
batches, models. It is glue: no numbers of its own, no idea that is not in the module it calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from satjepa.captions.embeddings import Embed, TextEncoders, caption_embedder, padded_embedder
from satjepa.captions.table import folder_of
from satjepa.config import Params
from satjepa.contracts import CAPTION_KINDS
from satjepa.data.cube import cube_paths, open_cube
from satjepa.data.pairs import PairDataset, collate, spread_evenly
from satjepa.data.share import Share
from satjepa.data.splits import Split, UnknownSplit
from satjepa.paths import ARTIFACTS, CUBES, SPLIT, root, run_folder

if TYPE_CHECKING:
    from satjepa.models.backbone import Backbone
    from satjepa.models.caption_forecaster import Caption
    from satjepa.models.joint import JointModel
    from satjepa.models.led import Led
    from satjepa.training.checkpoint import Checkpoint

Device = str | torch.device


def local(path: str) -> str:
    """A path of params.yaml: as it is if absolute or a hub id, else below the repository root where
    it exists there.
    """
    return str(root() / path) if (root() / path).exists() else path


def cubes_of(preset: str) -> list[Any]:
    """The opened cubes of a preset, in the order of their names."""
    return [open_cube(path) for path in cube_paths(root() / CUBES / preset)]


def open_split() -> Split:
    """The split file of the data stage."""
    return Split.load(root() / SPLIT)


def captions_file(params: Params) -> Path:
    """The table of the captioner and prompt version of params.yaml."""
    return _of_captioner(params, "captions") / "captions.parquet"


def text_folder(params: Params) -> Path:
    """The store of the embeddings of that table's texts."""
    return _of_captioner(params, "text")


def _of_captioner(params: Params, kind: str) -> Path:
    c = params.captions
    return folder_of(root() / ARTIFACTS / kind, c.captioner, c.prompt_version)


def dataset(
    params: Params,
    part: str,
    preset: str | None = None,
    *,
    text: bool = True,
    latents: bool = False,
    emb: bool = True,
) -> PairDataset:
    """The samples of a part ("train", "val", "test") of a preset (default: the first), with
    captions and latents if asked for; without `emb`, AlphaEarth is neither read nor decoded and
    counts as masked.

    Training windows overlap and are turned and mirrored; the others are neither. Truth layers come
    along outside training.
    """
    from satjepa.captions.store import TextStore
    from satjepa.captions.table import lookup
    from satjepa.models.latents import LatentStore

    d = params.data
    home = root() / ARTIFACTS
    training = part == "train"
    words: dict[str, Any] = {}
    if text:
        c = params.captions
        words["captions"] = lookup(captions_file(params), c.captioner, c.prompt_version)
        words["text"] = TextStore.open(text_folder(params))
        words["lengths"] = c.lengths or (c.max_length,) * len(CAPTION_KINDS)
    cubes = cubes_of(preset or d.presets[0])
    return PairDataset(
        cubes if emb else [cube.drop_vars("emb", errors="ignore") for cube in cubes],
        open_split().part(part),
        d.patch,
        d.stride,
        d.history,
        augment=training,
        truth=not training,
        latents=LatentStore(home / "latents") if latents else None,
        **words,
    )


def with_caption_lengths(params: Params) -> Params:
    """The same settings with `captions.lengths` of the captions of all images that samples show,
    where they are null: to train with. Rows of other images, which a table keeps, do not count. The
    published variant reads all it is given.
    """
    from satjepa.captions.lengths import caption_lengths
    from satjepa.captions.store import TextStore
    from satjepa.captions.table import lookup

    c = params.captions
    if c.lengths is not None or params.model.variant == "published":
        return params
    written = lookup(captions_file(params), c.captioner, c.prompt_version)
    shown = set()
    for preset, part in params.parts():
        shown.update(dataset(params, part, preset, text=False, emb=False).keys())
    texts = [written[key] for key in shown & written.keys()]
    lengths = caption_lengths(texts, TextStore.open(text_folder(params)), c.max_length)
    captions = c.model_copy(update={"lengths": lengths})
    return params.model_copy(update={"captions": captions})


def batches(
    data: PairDataset, size: int, limit: int = 0, share: Share | None = None
) -> Iterator[dict[str, Any]]:
    """Batches of `size` in order, of all samples or of `limit` spread evenly over them; of these
    batches, those of one process of several.
    """
    share = share or Share()
    chosen = spread_evenly(len(data), limit)
    for start in share.of(range(0, len(chosen), size)):
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


_kept_encoders = cache(TextEncoders.from_pretrained)


def load_text_encoders(
    params: Params, device: Device | None = None, keep: bool = False
) -> TextEncoders:
    """The frozen text encoders of the backbone, in its `dtype`; device: default the GPU if there is
    one. keep: read once, and given to every such call."""
    b = params.backbone
    load = _kept_encoders if keep else TextEncoders.from_pretrained
    return load(local(b.path), b.revision, device or the_device(), getattr(torch, b.dtype))


def embed_texts(params: Params, texts: list[str], device: Device | None = None) -> list[Caption]:
    """Embeddings of some texts by the backbone's text encoders on a device, each float32 on the
    CPU, whatever those are.
    """
    encoders = load_text_encoders(params, device)
    rows = zip(*encoders.embed_batch(texts, params.captions.max_length), strict=True)
    return [
        {"hidden": h.float().cpu(), "mask": m.cpu(), "pooled": p.float().cpu()} for h, m, p in rows
    ]


def build_model(
    params: Params, seed: int | None = None, device: Device | None = None
) -> JointModel:
    """A new model on the backbone of params.yaml, on the CPU; equal seeds give equal weights. The
    empty text is embedded on `device`, by default the GPU if there is one.
    """
    from safetensors.torch import load_file

    from satjepa.models.published.model import PublishedSatJepa
    from satjepa.models.satjepa import SatJepa

    torch.manual_seed(params.seed if seed is None else seed)
    backbone = load_backbone(params)
    (empty,) = embed_texts(params, [""], device)
    if params.model.variant == "published":
        return PublishedSatJepa(params, backbone, empty)
    layout = params.backbone.layout and load_file(
        Path(local(params.backbone.layout)) / "layout.safetensors"
    )
    return SatJepa(params, backbone, empty, layout)


def load_model(folder: str | Path) -> JointModel:
    """A trained model from its checkpoint folder, on the GPU if there is one, with `trained_on` set
    to the split that its run must not be scored on.
    """
    from satjepa.training import checkpoint

    found = checkpoint.load(folder)
    return from_checkpoint(found, the_device(), trained_on(found))


def load_run(params: Params, arm: str, seed: int) -> JointModel:
    """The trained model of an arm of params.yaml; it forecasts by `params.sample`."""
    from satjepa.training import checkpoint

    saved = checkpoint.load(run_folder(arm, seed) / "model")
    sample = params.sample.model_dump()
    return from_checkpoint(saved, the_device(), trained_on(saved), sample=sample)


def from_checkpoint(
    found: Checkpoint, device: str | torch.device, split: Split | UnknownSplit | None = None,
    backbone: str | None = None, sample: Mapping[str, Any] | None = None,
) -> JointModel:  # fmt: skip
    """The trained model of a checkpoint on a device, in evaluation mode, built with the settings in
    its header; those of the sampler come from params.yaml, where the checkpoint is one of a run.

    split: what `trained_on` is set to; None lets nothing be scored. backbone: a diffusers folder or
    hub id, instead of the checkpoint's own. sample: other values of the `sample` section, where not
    None.

    Raises ConfigError for a value that does not fit, CheckpointError for another backbone than it
    was trained on.
    """
    from satjepa.config import from_dict, load_params
    from satjepa.config.files import with_keys
    from satjepa.training import provenance

    changed = {f"sample.{key}": value for key, value in (sample or {}).items() if value is not None}
    changed |= {"backbone.path": backbone} if backbone else {}
    settings = provenance.settings_of(found.header, load_params().as_dict())
    config = with_keys(settings, changed)
    # an error names the backbone that was taken
    found = replace(found, header=found.header | {"config": config})
    model = provenance.restore(found, build_model(from_dict(config), device=device))
    model.trained_on = split or UnknownSplit()
    model.folder = found.folder
    return model.to(device)


def trained_on(found: Checkpoint) -> Split | UnknownSplit:
    """The split of the run that made a checkpoint; for an imported one, a guard that lets nothing
    be scored.

    Raises CheckpointError where artifacts/split.json is another split, FileNotFoundError where
    there is none.
    """
    from satjepa.training import checkpoint

    if found.header["split"] == checkpoint.UNKNOWN:
        return UnknownSplit()
    split = open_split()
    if split.sha256 != found.header["split"]:
        raise checkpoint.CheckpointError(
            f"{found.folder} was trained on another split than artifacts/split.json: its scores "
            "would leak"
        )
    return split


def embedder(model: JointModel, encoders: TextEncoders | None = None) -> Embed:
    """What turns captions into the embeddings a model was trained on: of an imported one, T5 states
    that attended to padding and keep it; ours are masked. encoders: by default those of its
    backbone, on its device, which are kept for the next call.
    """
    encoders = encoders or load_text_encoders(model.params, model.device, keep=True)
    make = padded_embedder if getattr(model, "reads_padding", False) else caption_embedder
    return make(encoders, model.params.captions.max_length)


def sample_batch(params: Params, count: int, preset: str | None = None) -> dict[str, Any]:
    """One batch of `count` test patches, spread evenly."""
    data = dataset(params, "test", preset)
    return collate([data[i] for i in spread_evenly(len(data), count)])


def load_led(model: JointModel, folder: str | Path, encoders: TextEncoders | None = None) -> Led:
    """The same model, each member led by a caption that the writer of its checkpoint in `folder`
    draws. CheckpointError where it has none. encoders: as of `embedder`.
    """
    from satjepa.models.led import Led
    from satjepa.training.writer import load_writer, require_listener

    require_listener(model)
    how = model.params.writer
    encoders = encoders or load_text_encoders(model.params, model.device, keep=True)
    parts = load_writer(folder, model, encoders), embedder(model, encoders), encoders.spell
    return Led(model, *parts, how.temperature, how.top_p)
