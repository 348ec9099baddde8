"""Commands from GeoTIFF to GeoTIFF, or to words: forecast, inference, caption."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from satjepa.cli import common
from satjepa.cli.common import Checkpoint, Samples, Seed, White, app, plainly
from satjepa.models.published import STEPS, STRENGTH

if TYPE_CHECKING:
    from satjepa.forecast.members import Members
    from satjepa.forecast.raster import Made
    from satjepa.forecast.request import Request

Images = Annotated[
    list[Path] | None, typer.Argument(help="RGB GeoTIFFs of one place, one a year, oldest first.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="GeoTIFF to write: mean and spread of red, green, blue [forecast_<YEAR>.tif]."
    ),
]
Example = Annotated[bool, typer.Option("--example", help="Forecast the example scene.")]
Picture = Annotated[Path | None, typer.Option(help="PNG to write [beside the GeoTIFF].")]
NoPicture = Annotated[bool, typer.Option("--no-picture", help="Write no PNG.")]
Truth = Annotated[
    Path | None, typer.Option(help="Image of the year forecast, to draw and compare with.")
]
Steps = Annotated[int | None, typer.Option(help="Steps of the sampler [those of params.yaml].")]
Guidance = Annotated[
    float | None, typer.Option(help="Classifier-free guidance [that of params.yaml].")
]
Strength = Annotated[
    float | None,
    typer.Option(
        help="1: from pure noise. Below: from the last image, not zero-RGB [that of params.yaml]."
    ),
]
Compile = Annotated[
    str | None, typer.Option("--compile", help="auto, on or off [that of params.yaml].")
]
Words = Annotated[
    str | None,
    typer.Option(
        "--caption", help="Semantic caption of the year forecast, to lead every tile [the model's]."
    ),
]
What = Annotated[str | None, typer.Option(help="Informative caption to lead by [by rule].")]
Layout = Annotated[str | None, typer.Option(help="Geometric caption to lead by [by rule].")]
Written = Annotated[
    bool,
    typer.Option("--written", help="Lead each member by a caption that is drawn; write them, too."),
]
Years = Annotated[
    list[int] | None,
    typer.Option(help="Year of the last image, or repeated for each [from the names]."),
]


@app.command()
@plainly
def forecast(
    images: Images = None, out: Out = None, example: Example = False, samples: Samples = None,
    seed: Seed = 0, checkpoint: Checkpoint = None, picture: Picture = None,
    no_picture: NoPicture = False, truth: Truth = None, white: White = None, steps: Steps = None,
    guidance: Guidance = None, strength: Strength = None, compiled: Compile = None,
    caption: Words = None, informative: What = None, geometric: Layout = None, year: Years = None,
    written: Written = False,
) -> None:  # fmt: skip
    """Forecast the year after the last of the images, on their grid and in their units; draw it."""
    from satjepa.forecast.load import load
    from satjepa.forecast.members import Members
    from satjepa.forecast.picture import MEMBERS, check_truth, middle
    from satjepa.forecast.request import check_files

    if bool(images) == example:
        raise typer.BadParameter("name images, oldest first, or pass --example")
    if example:
        images, example_truth = _example()
        truth = truth or example_truth
    request = check_files(images, out, year)  # before a model is loaded
    out = out or Path(f"forecast_{_next_year(request)}.tif")
    picture = None if no_picture else picture or out.with_suffix(".png")
    _check_outputs(request, out, picture)
    if truth:
        check_truth(request, truth)
    folder = common.existing(checkpoint)
    sampling = {"steps": steps, "guidance": guidance, "strength": strength, "compile": compiled}
    model = load(folder, **sampling, captions="written" if written else None)
    samples = samples or model.joint.params.sample.samples
    typer.echo(f"model {folder} ({model.name}); {model.sampler}")
    members = Members(middle(request.shape), min(MEMBERS, samples))
    words = {"semantic": caption, "informative": informative, "geometric": geometric}
    given = {kind: text for kind, text in words.items() if text is not None}
    started = time.perf_counter()
    made = model.make(request, samples, seed, white, typer.echo, members, given)
    made.write(out)
    took = f"mean and spread, in {time.perf_counter() - started:.1f} s"
    typer.echo(f"wrote {out}: forecast of year {made.notes['YEAR']}, {took}")
    _tell(made, out)
    _show(made, members, picture, truth)


def _tell(made: Made, out: Path) -> None:
    """Write the sentences that led the members beside the GeoTIFF, where there are any."""
    from satjepa.captions.grammar import share_parsed
    from satjepa.forecast.led import write_sentences

    if texts := [text for tile in made.sentences.values() for text in tile]:
        path = write_sentences(made.sentences, out.with_suffix(".sentences.csv"))
        share = share_parsed(texts)
        typer.echo(
            f"wrote {path}: {len(texts)} captions; {share:.0%} have the form of those by rule"
        )


def _check_outputs(request: Request, out: Path, picture: Path | None) -> None:
    """Refuse to write over an image, or both files under one name."""
    from satjepa.forecast.request import check_output

    check_output(out, request.images)
    if picture == out:
        raise typer.BadParameter(f"{out} cannot be both the GeoTIFF and its picture")
    if picture:
        check_output(picture, request.images)


def _example() -> tuple[list[Path], Path]:
    """The shipped scene and its truth; says what to type for the same."""
    from satjepa.demo.example import shipped_scene

    images, truth = shipped_scene()
    folder = images[0].parent
    here = Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    typer.echo(f"example: satjepa forecast {shown}/*.tif --truth {shown}/truth/{truth.name}")
    return images, truth


def _next_year(request: Request) -> str:
    last = request.years[-1]
    return "next_year" if last is None else str(last + 1)


def _show(made: Made, members: Members, picture: Path | None, truth: Path | None) -> None:
    """Draw a forecast and compare it with the truth, as far as is asked for."""
    from satjepa.forecast.picture import psnr, save_picture, truth_of, view_of

    image = None if truth is None else truth_of(made, truth)
    if picture is not None:
        typer.echo(
            f"wrote {save_picture(view_of(made, members, image), picture)}: the picture of it"
        )
    if image is not None:
        ours, persistence = psnr(made, image)
        typer.echo(
            f"against {truth.name}: PSNR {ours:.2f} dB; the last image taken as the forecast has "
            f"{persistence:.2f} dB"
        )


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
