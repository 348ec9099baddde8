"""The demo model as it is shipped: averaged weights, the forecast of the example scene by them, and
a card that says what they are, in numbers that were measured.

    python -m satjepa.pipeline.ship <run> <scores.csv> <out>

    <out>/model.safetensors, state.json    `satjepa.training.export` of the run
    <out>/writer.safetensors               its caption writer, where the run has one
    <out>/example.json                     what it forecasts of `assets/example`
    <out>/README.md                        the card

Equal runs and scores give equal bytes. Where params.yaml is of other data or of another backbone
than the demo's, the shipped model stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from satjepa.assemble import open_split
from satjepa.config import Params, load_params, yaml12
from satjepa.demo.example import RECIPE, shipped_scene
from satjepa.evaluation.results import is_answer
from satjepa.evaluation.table import read_scores
from satjepa.forecast.load import load
from satjepa.paths import replaced, root, write_text
from satjepa.training.checkpoint import MODEL, STATE, Checkpoint
from satjepa.training.export import export
from satjepa.training.writer import NAME as WRITER
from satjepa.training.writer import find_writer

IMPORTED = "data"  # what data.dvc makes of assets/demo
RECORD = "example.json"
COLUMNS = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "skill": "skill",
    "psnr_changed": "PSNR where the land changed, dB",
    "crps": "CRPS",
    "spread_skill": "spread / error",
}
SETTINGS = ("seed", "data", "captions", "backbone", "model", "loss", "train", "sample")


def ship(run: str | Path, scores: str | Path, out: str | Path) -> Path:
    """Export the run in folder `run` to `out`, with its record and its card; returns `out`.

    scores: CSV of `satjepa.evaluation.score.write_scores`, of that run. Raises CheckpointError as
    `export` does.
    """
    found = export(run, out)
    writer = find_writer(Path(run) / "model")
    if writer is not None:  # the averaged tokens that it was trained for are those exported
        with replaced(found.folder / WRITER) as part:
            shutil.copyfile(writer, part)
    else:
        (found.folder / WRITER).unlink(missing_ok=True)
    record = forecast_example(found.folder)
    write_text(found.folder / RECORD, json.dumps(record, indent=1) + "\n")
    text = card(found, pd.DataFrame(read_scores(Path(scores))), record)
    write_text(found.folder / "README.md", text)
    return found.folder


def forecast_example(folder: Path) -> dict[str, Any]:
    """What the model in `folder` forecasts of the example scene, in a few numbers: mean and spread
    of each band over the scene, PSNR in dB of the mean and of the last image; to four digits after
    the point.
    """
    images, truth = shipped_scene()
    settings = {"samples": 8, "seed": 0}
    forecast = load(folder, device="cpu").forecast(*images, **settings)
    ours, persistence = forecast.psnr(truth)
    return settings | {
        "images": [image.relative_to(root()).as_posix() for image in images],
        "truth": truth.relative_to(root()).as_posix(),
        "mean": [round(float(band.mean()), 4) for band in forecast.mean],
        "spread": [round(float(band.mean()), 4) for band in forecast.spread],
        "psnr": round(ours, 4),
        "psnr_persistence": round(persistence, 4),
    }


def card(found: Checkpoint, scores: pd.DataFrame, record: dict[str, Any]) -> str:
    """The model card: Markdown, made from the header of the checkpoint, its scores and its record
    of the example scene.
    """
    config = found.header["config"] | {"sample": load_params().sample.model_dump()}
    preset = config["data"]["presets"][0]
    answers = scores[scores["model"].map(is_answer) & (scores["preset"] == preset)]
    mine = answers.iloc[0]
    return CARD.format(
        numbers=sum(tensor.numel() for tensor in found.tensors.values()),
        megabytes=(found.folder / MODEL).stat().st_size / 1e6,
        steps=found.state["step"],
        patch=config["data"]["patch"],
        history=config["data"]["history"],
        backbone_path=config["backbone"]["path"],
        preset=preset,
        data=_of_the_data(config["data"]),
        hashes=_hashes(found),
        settings=yaml12.dumps({name: config[name] for name in SETTINGS}).strip(),
        scores=_score_rows(scores),
        mine=mine,
        images=", ".join(f"`{Path(image).name}`" for image in record["images"]),
        record=record,
        spread=_spread(mine["spread_skill"]),
    )


def _of_the_data(data: dict[str, Any]) -> str:
    """What the model was trained and scored on: the demo world, or regions of the user's own."""
    folder = root() / data["root"]
    recipe = root() / RECIPE if data["root"] == IMPORTED else folder / "world.yaml"
    if recipe.exists():
        world = yaml12.loads(recipe.read_text())
        counts = {part: len(names) for part, names in world["regions"].items()}
        size = world["size"]
        land = (
            f"The demo world, a land that is simulated from `{RECIPE}`: regions of {size} x {size} "
            f"pixels of 10 m, {world['years'][0]} to {world['years'][-1]}. No image of the real "
            "Earth."
        )
    else:
        split = open_split()
        counts = {part: len(getattr(split, part)) for part in ("train", "val", "test")}
        land = f"Regions of `{data['root']}`."
    return textwrap.fill(
        f"{land} Trained on {counts['train']} regions of the preset `{data['presets'][0]}`, with "
        f"{counts['val']} for validation; scored on {counts['test']} others.",
        100,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _spread(ratio: float | None) -> str:
    """What spread over error says of the ensemble."""
    if ratio is None or math.isnan(ratio):
        return "One forecast a place was scored: nothing is said of an ensemble."
    return f"Spread / error is {ratio:.2f} there (1 is right): the ensemble {_calibration(ratio)}."


def _hashes(found: Checkpoint) -> str:
    """Rows of a table: of what, sha256."""
    header = found.header
    files = [found.folder / name for name in (MODEL, STATE, WRITER, RECORD)]
    rows = {f"`{path.name}`": _sha256(path) for path in files if path.exists()}
    rows |= {
        "frozen weights of the backbone": header["backbone"],
        "split": header["split"],
        "settings that decide the weights": header["config_digest"],
        "training code": header["code"],
        f"`{RECIPE}`": _sha256(root() / RECIPE),
    }
    return "\n".join(f"| {name} | `{digest}` |" for name, digest in rows.items())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _score_rows(scores: pd.DataFrame) -> str:
    """Head and rows of a Markdown table of the scores."""
    columns = {name: title for name, title in COLUMNS.items() if name in scores}
    head = ["model", "preset", "patches", *columns.values()]
    lines = [head, ["---"] * len(head)]
    for _, row in scores.iterrows():
        values = ["" if pd.isna(row[name]) else f"{row[name]:.3f}" for name in columns]
        lines.append([row["model"], row["preset"], str(row["n"]), *values])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _calibration(ratio: float) -> str:
    """What the ratio of spread to error says of the ensemble, in words."""
    if abs(ratio - 1) <= 0.1:
        return "is as wide as its errors are large"
    return "is too sure of itself" if ratio < 1 else "is less sure of itself than it could be"


CARD = """\
---
license: apache-2.0
library_name: satjepa
pipeline_tag: image-to-image
tags: [satellite, sentinel-2, forecasting, jepa, flow-matching, demo]
---
# The demo model of satjepa

Written by `python -m satjepa.pipeline.ship` from what was measured; `make repro` writes it again.

## What it is
A small Sat-JEPA-Diff: it forecasts the Sentinel-2-like image of next year from the last image,
captions written from it by rule, and up to {history} earlier years, in patches of {patch} x {patch}
pixels. {numbers:,} trained numbers ({megabytes:.1f} MB, float32) on the frozen tiny Stable
Diffusion 3 in `{backbone_path}`, which it needs. These are the averaged weights after {steps}
steps, and nothing that only training needs.

```python
import satjepa

model = satjepa.load("assets/demo_model")
forecast = model.forecast("s2_2020.tif", "s2_2021.tif", "s2_2022.tif")
forecast.save("s2_2023.tif")
```

## Data
{data}

## Scores
On test regions; `skill` is 1 - MSE / MSE of the last image taken as the forecast (persistence).

{scores}

Of the example scene ({images}; {record[samples]} samples, seed {record[seed]}):
PSNR {record[psnr]:.2f} dB, of the last image as the forecast {record[psnr_persistence]:.2f} dB.

## Intended use
To see a forecast at once, to try the command line and the Python calls on files of one's own, and
to check that a checkout works. For results on real land train on real land.

## Limits
* It knows the demo world only: its colours, its crops, its ten metres. On other images it forecasts
  a land that looks like the demo world; nothing measured here holds there.
* What no one can foresee, it does not: weather, breaks of a rotation. In the preset `{preset}` the
  mean of its members has {mine[psnr]:.1f} dB, where the land changed {mine[psnr_changed]:.1f} dB.
* {spread}
* One seed. No comparison of methods should rest on it.

## Hashes
| of | sha256 |
| --- | --- |
{hashes}

## Settings
```yaml
{settings}
```

## Licence
Apache-2.0, as the repository (`LICENSE`): code, weights and demo world are its own.
"""


def is_demo(params: Params) -> bool:
    """Whether the pipeline is that of the demo, whose model is shipped: its data, a backbone that
    comes with the repository.
    """
    return params.data.root == IMPORTED and params.backbone.path.startswith("assets/")


def main(arguments: Sequence[str]) -> None:
    """The command line: run, scores, out."""
    if is_demo(load_params()):
        print(ship(*arguments))
    else:
        print(f"{arguments[-1]} stays as it is: what was trained here is no demo")


if __name__ == "__main__":
    main(sys.argv[1:])
