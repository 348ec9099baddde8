"""Fine-tuning on a place: a trained model goes on for a few minutes on the earlier years of some
scenes of one's own.

    <out>/model/    the checkpoint to forecast with: averaged weights; its header says from which
                    model, on which images and years ("origin")
    <out>/run/      the run (`satjepa.training.loop`), its log, and what it goes on from
    <out>/place/    cubes, captions, embeddings and latents (`satjepa.pipeline.place`)

Experimental. The few slow steps that are the default gained 0.1 and 0.3 dB on the two real scenes
measured; at a rate of 0.1 one of them gained 2 dB and the other lost 3 dB, and persistence had the
better PSNR on both (docs/own_region.md; benchmarks/fine_tune.py measures it on any scene).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satjepa.assemble import build_model, load_text_encoders, the_device
from satjepa.captions import rules
from satjepa.captions.table import RULES
from satjepa.config import Params, digest, from_dict, load_params
from satjepa.config.files import with_keys
from satjepa.models.averages import AVERAGE
from satjepa.pipeline.place import Place, PlaceError, find_place, samples_of
from satjepa.training import checkpoint, provenance
from satjepa.training.checkpoint import AVERAGED, MODEL, Checkpoint, CheckpointError
from satjepa.training.export import export
from satjepa.training.loop import train

if TYPE_CHECKING:
    from satjepa.models.joint import JointModel

STEPS = 15
RATE = 0.02
BATCH = 8  # windows a step at most; what was measured was measured with it
ORIGIN = "origin"  # of the header of a fine-tuned checkpoint: what it came from


@dataclass(frozen=True)
class How:
    """How long and how fast is trained.

    steps: of `train.batch` windows each, of BATCH at most. rate: share of the learning rates that
    the model was trained with. seed: of the order of the windows, and of noise. both_ways: whether
    each pair of years is also trained on from the later to the earlier one.
    """

    steps: int = STEPS
    rate: float = RATE
    seed: int = 0
    both_ways: bool = True


def fine_tune(
    source: str | Path,
    data: str | Path,
    out: str | Path,
    how: How = How(),
    *,
    until: int | None = None,
    white: float | None = None,
    resume: str = "auto",
    max_seconds: float | None = None,
    log: Callable[[str], None] = print,
    progress: bool = True,
) -> Path:
    """Train the model in the checkpoint folder `source` on the scenes below `data`; returns the
    folder of the new checkpoint, <out>/model.

    The last two consecutive years of each region are held back as a pair, so that the forecast of
    the last one can be compared with the truth; until, white: as `find_place` has them.
    Interrupted, the same call goes on; finished, it returns at once but for the data.

    Raises PlaceError and SceneError for images that cannot be trained on, CheckpointError for a
    checkpoint that cannot be, or where `out` holds something else; Interrupted as `train`.
    """
    found = checkpoint.load(source)
    out = Path(out)
    _require_own(out)
    settings = provenance.settings_of(found.header, load_params().as_dict())
    if settings["model"]["variant"] == "published":
        raise CheckpointError(f"{source} is of the published variant, which is not fine-tuned here")
    place = find_place(data, until, white, settings["data"]["white"])
    log(f"years that are trained on\n{place}")
    params = settings_for(settings, place, data, how)
    model = start_from(found, params).to(the_device())
    reads = params.model.use_captions
    encoders = load_text_encoders(params) if reads else None
    samples = samples_of(
        place, params, model.backbone, encoders, out / "place", log, progress, how.both_ways
    )
    origin = origin_of(found, place, how, sorted({own.region for own in samples.places}))
    train(
        model, samples, params, out / "run", resume, progress, split=digest(origin),
        max_seconds=max_seconds,
    )  # fmt: skip
    return _export(out, origin)


def settings_for(settings: dict[str, Any], place: Place, data: str | Path, how: How) -> Params:
    """The settings of a model, changed to those of its training on a place."""
    rates = settings["train"]
    muon = rates["muon_lr"]
    return from_dict(
        with_keys(
            settings,
            {
                "seed": how.seed,
                "data.root": str(data),
                "data.presets": ["place"],
                "data.split": "year",
                "data.white": place.white,
                "captions.captioner": RULES,
                "captions.prompt_version": rules.PROMPT_VERSION,
                "train.steps": how.steps,
                "train.batch": min(BATCH, rates["batch"]),
                "train.jepa_share": 0.0,
                "train.lr": rates["lr"] * how.rate,
                "train.muon_lr": None if muon is None else muon * how.rate,
                "train.checkpoint_every": 50,
            },
        )
    )


def start_from(found: Checkpoint, params: Params) -> JointModel:
    """A model whose weights are the averaged ones of a checkpoint, which forecasts are made with;
    the target encoder is that of the checkpoint, or, where it has none, the encoder.

    Raises CheckpointError for another backbone, or settings it does not fit.
    """
    model = provenance.restore(found, build_model(params))
    if found.header.get("weights") == AVERAGED and params.model.use_jepa:
        model.target_encoder = copy.deepcopy(model.encoder).requires_grad_(False)
    state = model.state()
    averages = {
        name.removeprefix(AVERAGE): tensor
        for name, tensor in state.items()
        if name.startswith(AVERAGE)
    }
    trained = {name: tensor for name, tensor in state.items() if not name.startswith(AVERAGE)}
    model.load_state(trained | averages)
    return model


def origin_of(found: Checkpoint, place: Place, how: How, regions: Sequence[str]) -> dict[str, Any]:
    """What a fine-tuned model came from: sha256 and steps of the model before, its own origin if it
    was fine-tuned itself, the years and the sha256 of the images of each of the regions, and how
    it was trained.
    """
    images = {}
    for name in regions:
        sums = hashlib.sha256()
        for scene in place.regions[name]:
            sums.update(f"{scene.year} ".encode() + scene.rgb.read_bytes())
            sums.update(scene.emb.read_bytes() if scene.emb else b"")
        images[name] = sums.hexdigest()
    origin = {
        "model": found.state["sha256"][MODEL],
        "model_steps": found.state["step"],
        "years": {name: place.years()[name] for name in regions},
        "images": images,
        "steps": how.steps,
        "rate": how.rate,
        "both_ways": how.both_ways,
    }
    return origin | ({ORIGIN: found.header[ORIGIN]} if ORIGIN in found.header else {})


def _require_own(out: Path) -> None:
    """CheckpointError where <out>/model is a checkpoint that was not made here."""
    if checkpoint.exists(out / "model") and ORIGIN not in checkpoint.read_header(out / "model"):
        raise CheckpointError(
            f"{out / 'model'} is a model that was not fine-tuned, and would be written over: name "
            "another folder with --out"
        )


def _export(out: Path, origin: dict[str, Any]) -> Path:
    """The averaged weights of <out>/run as <out>/model, which says where they come from."""
    folder = out / "model"
    finished = export(out / "run", out / "run" / "averaged")
    header = finished.header | {ORIGIN: origin}
    checkpoint.save(folder, finished.tensors, header, {"step": finished.state["step"]}, None)
    checkpoint.remove(finished.folder)
    return folder


__all__ = ["How", "PlaceError", "fine_tune", "origin_of", "settings_for", "start_from"]
