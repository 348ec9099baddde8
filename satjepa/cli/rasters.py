"""Commands from GeoTIFF to GeoTIFF, or to words: inference, caption."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from satjepa.cli import common
from satjepa.cli.common import Seed, White, app, plainly
from satjepa.models.published import STEPS, STRENGTH


@app.command()
@plainly
def caption(
    image: Annotated[Path, typer.Argument(help="RGB GeoTIFF.")], white: White = None
) -> None:
    """Describe an image by rule: what covers it, how it is laid out, what it is."""
    from satjepa.captions.rules import caption
    from satjepa.data.remarks import remarks
    from satjepa.data.stack import read_stack, whites_of
    from satjepa.forecast import local_file

    image = local_file(image)
    ((white, why),) = whites_of([image], white)
    typer.echo(f"white {white:g}, {why}")
    for line in remarks([image]):
        typer.echo(line)
    stack = read_stack([image], [None], [white])
    for name, text in caption(stack.rgb[0], stack.valid[0], encoding="display")._asdict().items():
        typer.echo(f"{name:12s} {text}")


Tile = Annotated[
    Path | None,
    typer.Option("--input_tif", "--input", help="RGB GeoTIFF [the last pair of each test region]."),
]
Folder = Annotated[Path, typer.Option("--output_dir", "--output", help="Folder to write to.")]
AnyCheckpoint = Annotated[
    Path | None,
    typer.Option(help="Published .pth.tar or folder [the pipeline's, as in `forecast`]."),
]
Truths = Annotated[
    list[Path] | None,
    typer.Option("--gt_tif", help="The true next image, to score; repeated for further years."),
]
DiffusionSteps = Annotated[int, typer.Option("--diffusion_steps", help="Steps of the sampler.")]
NoiseStrength = Annotated[
    float,
    typer.Option(
        "--noise_strength", help="Noise level to start from; the rest is the image. 1: pure noise."
    ),
]
MultiStep = Annotated[
    int, typer.Option("--multi_step", help="Years, each forecast from the one before.")
]
CaptionFolder = Annotated[
    Path | None,
    typer.Option("--caption_dir", help="captions.parquet or JSON files [captions by rule]."),
]
AsPublished = Annotated[
    bool,
    typer.Option(
        "--as-published", help="One step, the tile shrunk to one patch, as the published code does."
    ),
]
Backbone = Annotated[str | None, typer.Option(help="Folder or hub id of SD 3 [the checkpoint's].")]
Published = Annotated[int, typer.Option("--samples", min=1, help="Size of the ensemble.")]
Year = Annotated[int | None, typer.Option(help="Year of the tile [from its name].")]


@app.command()
@plainly
def inference(
    output_dir: Folder, checkpoint: AnyCheckpoint = None, input_tif: Tile = None,
    gt_tif: Truths = None, diffusion_steps: DiffusionSteps = STEPS,
    noise_strength: NoiseStrength = STRENGTH, multi_step: MultiStep = 1,
    caption_dir: CaptionFolder = None, as_published: AsPublished = False, samples: Published = 1,
    seed: Seed = 0, white: White = None, backbone: Backbone = None, year: Year = None,
) -> None:  # fmt: skip
    """Forecast a tile as the published model card describes it: GeoTIFFs, a picture, scores against
    the truth.
    """
    from satjepa.assemble import the_device
    from satjepa.config import load_params
    from satjepa.published.card import load_model
    from satjepa.published.inference import Settings, check_inference, held_out, run_job

    if input_tif is None and (gt_tif or year is not None):
        raise typer.BadParameter("--gt_tif and --year are of the tile that --input_tif names")
    settings = Settings(
        diffusion_steps, noise_strength, multi_step, samples, seed, as_published, white
    )
    tiles = [(input_tif, gt_tif or [])] if input_tif else held_out(load_params())
    jobs = [check_inference(tif, output_dir, settings, truths, year) for tif, truths in tiles]
    file = checkpoint is not None and checkpoint.is_file()
    model = load_model(checkpoint if file else common.existing(checkpoint), the_device(), backbone)
    for job in jobs:
        run_job(model, job, caption_dir, typer.echo)
