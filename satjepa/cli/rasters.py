"""Commands from GeoTIFF to GeoTIFF, or to words: forecast, inference, caption."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from satjepa.cli import common
from satjepa.cli.common import Checkpoint, Samples, Seed, White, app, plainly

if TYPE_CHECKING:
    from satjepa.models.joint import JointModel

Images = Annotated[
    list[Path], typer.Argument(help="RGB GeoTIFFs of one place, one a year, oldest first.")
]
Out = Annotated[Path, typer.Option(help="GeoTIFF to write: mean and spread of red, green, blue.")]
Steps = Annotated[int | None, typer.Option(help="Steps of the sampler [the checkpoint's].")]
Guidance = Annotated[
    float | None, typer.Option(help="Classifier-free guidance [the checkpoint's].")
]
Strength = Annotated[
    float, typer.Option(help="1: from pure noise. Below: from the last image, not zero-RGB.")
]
Years = Annotated[
    list[int] | None,
    typer.Option(help="Year of the last image, or repeated for each [from the names]."),
]


@app.command()
@plainly
def forecast(
    images: Images, out: Out, samples: Samples = 8, seed: Seed = 0, checkpoint: Checkpoint = None,
    white: White = None, steps: Steps = None, guidance: Guidance = None, strength: Strength = 1.0,
    year: Years = None,
) -> None:  # fmt: skip
    """Forecast the year after the last of the images, on their grid and in their units."""
    from satjepa.assemble import embedder, load_text_encoders
    from satjepa.forecast import check_files, forecast_raster

    request = check_files(images, out, year)  # before a model is loaded
    folder = common.existing(checkpoint)
    model, name = common.trained_model(folder, steps=steps, guidance=guidance, strength=strength)
    config = model.params
    embed = embedder(model, load_text_encoders(config)) if config.model.use_captions else None
    tags = {"MODEL": name, **sampler_tags(model)}
    typer.echo(f"model {folder} ({name}); {in_words(model)}")
    forecast_raster(
        request, out, model,
        patch=config.data.patch, history=config.data.history, embed=embed, samples=samples,
        seed=seed, white=white, trained_white=config.data.white, log=typer.echo, tags=tags,
    )  # fmt: skip


def sampler_tags(model: JointModel) -> dict[str, str]:
    """What the sampler of a model is set to, as tags of a GeoTIFF. The published variant takes one
    step, whatever it is set to.
    """
    config = model.params
    steps = 1 if config.model.variant == "published" else config.sample.steps
    return {
        "STEPS": str(steps),
        "GUIDANCE": f"{config.sample.guidance:g}",
        "STRENGTH": f"{model.strength:g}",
    }


def in_words(model: JointModel) -> str:
    """The same in words, and whether a pixel of the last image reaches the sampler."""
    tags = sampler_tags(model)
    start = "pure noise, strict zero-RGB"
    if model.strength != 1:
        start = f"the last image, strength {model.strength:g}: not zero-RGB"
    return f"{tags['STEPS']} steps from {start}; guidance {tags['GUIDANCE']}"


@app.command()
@plainly
def caption(
    image: Annotated[Path, typer.Argument(help="RGB GeoTIFF.")], white: White = None
) -> None:
    """Describe an image by rule: what covers it, how it is laid out, what it is."""
    from satjepa.captions.rules import caption
    from satjepa.data.stack import read_stack, whites_of
    from satjepa.forecast import local_file, padded

    image = local_file(image)
    ((white, why),) = whites_of([image], white)
    typer.echo(f"white {white:g}, {why}")
    stack = padded(read_stack([image], [None], [white]), patch=16)  # the least the rules can read
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
Year = Annotated[int | None, typer.Option(help="Year of the tile [from its name].")]


@app.command()
@plainly
def inference(
    output_dir: Folder, checkpoint: AnyCheckpoint = None, input_tif: Tile = None,
    gt_tif: Truths = None, diffusion_steps: DiffusionSteps = 20,
    noise_strength: NoiseStrength = 0.35, multi_step: MultiStep = 1,
    caption_dir: CaptionFolder = None, as_published: AsPublished = False, samples: Samples = 1,
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
