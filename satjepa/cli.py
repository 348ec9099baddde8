"""`satjepa ...`: one subcommand per job, each a few lines around the module that does it.

Errors that satjepa raises are one message on stderr and exit status 2; other errors are bugs and
keep their traceback.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from satjepa.models.joint import JointModel

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None, help="Forecast next year's Sentinel-2 image of a place.",
)  # fmt: skip
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check the data.")
app.add_typer(data_app, name="data")

Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a checkpoint [default: runs/joint/<first of ablate.seeds>/model]."
    ),
]


def plainly(command: Callable[..., None]) -> Callable[..., None]:
    """One message instead of a traceback for errors of ours and of the file system; a stopped run
    exits with 130.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as stop:
            typer.echo(str(stop) or "interrupted", err=True)
            raise typer.Exit(130) from None
        except Exception as error:
            if not (type(error).__module__.startswith("satjepa.") or isinstance(error, OSError)):
                raise
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None

    return run


def existing(folder: Path | None) -> Path:
    """The checkpoint asked for, or the one the pipeline leaves; CheckpointError says what to do
    where there is none.
    """
    from satjepa.config import load_params
    from satjepa.paths import root
    from satjepa.training import checkpoint

    folder = folder or root() / f"runs/joint/{load_params().ablate.seeds[0]}/model"
    if not checkpoint.exists(folder):
        raise checkpoint.CheckpointError(
            f"no checkpoint at {folder}: run `make repro`, or pass --checkpoint FOLDER"
        )
    return folder


def trained_model(folder: Path, **sample: Any) -> tuple[JointModel, str]:
    """The model of a checkpoint, with other values in its `sample` section (where not None), and
    its id.
    """
    from satjepa.assemble import from_checkpoint, local, the_device
    from satjepa.training import checkpoint

    found = checkpoint.load(folder)
    if Path(
        local(found.header["config"]["backbone"]["path"])
    ).is_dir():  # no bars for files read in a blink
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    return from_checkpoint(found, the_device(), sample=sample), found.state["sha256"][
        checkpoint.MODEL
    ][:12]


@app.command()
@plainly
def forecast(
    images: Annotated[
        list[Path], typer.Argument(help="RGB GeoTIFFs of one place, one a year, oldest first.")
    ],
    out: Annotated[
        Path, typer.Option(help="GeoTIFF to write: mean and spread of red, green, blue.")
    ],
    samples: Annotated[int, typer.Option(min=1, help="Size of the ensemble.")] = 8,
    seed: Annotated[int, typer.Option(help="The same seed gives the same forecast.")] = 0,
    checkpoint: Checkpoint = None,
    white: Annotated[
        float | None,
        typer.Option(
            min=1e-6, help="Value in [0, 1] shown as white [1 uint8, else as in training]."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the sampler [the checkpoint's].")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Classifier-free guidance [the checkpoint's].")
    ] = None,
    strength: Annotated[
        float, typer.Option(help="1: from pure noise. Below: from the last image, not zero-RGB.")
    ] = 1.0,
    year: Annotated[
        list[int] | None,
        typer.Option(help="Year of the last image, or repeated for each [from the names]."),
    ] = None,
) -> None:
    """Forecast the year after the last of the images, on their grid and in their units."""
    from satjepa.assemble import embedder, load_text_encoders
    from satjepa.forecast import check_files, forecast_raster

    folder = existing(checkpoint)
    check_files(images, out, year)  # what they alone can tell is told before the model is loaded
    model, name = trained_model(folder, steps=steps, guidance=guidance, strength=strength)
    how = model.params.sample
    config = model.params
    strength = model.strength
    embed = embedder(model, load_text_encoders(config)) if config.model.use_captions else None
    start = (
        "pure noise, strict zero-RGB"
        if strength == 1
        else f"the last image, strength {strength:g}: not zero-RGB"
    )
    taken = (
        1 if config.model.variant == "published" else how.steps
    )  # its sampler takes one, whatever it is told
    typer.echo(f"model {folder} ({name}); {taken} steps from {start}; guidance {how.guidance:g}")
    forecast_raster(
        images, out, model,
        patch=config.data.patch, history=config.data.history,
        embed=embed, samples=samples, seed=seed, years=year, white=white,
        trained_white=config.data.white, log=typer.echo,
        tags={"MODEL": name, "STEPS": str(taken), "GUIDANCE": f"{how.guidance:g}",
        "STRENGTH": f"{strength:g}"},
    )  # fmt: skip


@app.command()
@plainly
def train(
    run_dir: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/scratch"),
    arm: Annotated[str | None, typer.Option(help="An ablation of params.yaml.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the seed in params.yaml.")] = None,
    resume: Annotated[str, typer.Option(help="auto, no, or the folder of a checkpoint.")] = "auto",
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so long; the same command goes on.")
    ] = None,
) -> None:
    """Train a model on what the pipeline has prepared in artifacts/; Ctrl-C saves, the same command
    goes on.
    """
    from satjepa.assemble import build_model, dataset
    from satjepa.config import load_params
    from satjepa.training.loop import train

    params = load_params(arm=arm, seed=seed)
    data = dataset(params, "train", latents=True)
    limit = None if minutes is None else 60 * minutes
    typer.echo(
        f"finished: {train(build_model(params), data, params, run_dir, resume, max_seconds=limit)}"
    )


@app.command()
@plainly
def evaluate(
    checkpoint: Checkpoint = None,
    out: Annotated[Path, typer.Option(help="CSV to write.")] = Path("runs/scratch/scores.csv"),
) -> None:
    """Score a trained model on the held-out regions of every preset."""
    from satjepa.assemble import load_model
    from satjepa.config import load_params
    from satjepa.evaluation.score import score_run

    scores = score_run(load_model(existing(checkpoint)), load_params(), out)
    typer.echo(scores.round(3).T.to_string())


@app.command()
@plainly
def caption(
    image: Annotated[Path, typer.Argument(help="RGB GeoTIFF.")],
    white: Annotated[
        float | None, typer.Option(min=1e-6, help="Value in [0, 1] shown as white.")
    ] = None,
) -> None:
    """Describe an image by rule: what covers it, how it is laid out, what it is."""
    from satjepa.captions.rules import caption
    from satjepa.data.display import display_white
    from satjepa.data.stack import read_stack

    white, why = display_white(image, white)
    typer.echo(f"white {white:g}, {why}")
    stack = read_stack([image], [None], white)
    for name, text in caption(stack.rgb[0], stack.valid[0], encoding="display")._asdict().items():
        typer.echo(f"{name:12s} {text}")


@app.command()
@plainly
def convert(
    source: Annotated[
        Path, typer.Argument(help="A published .pth.tar, or a folder of ours with that variant.")
    ],
    out: Annotated[Path, typer.Argument(help="What to make of it: the other one. Must not exist.")],
    backbone: Annotated[
        str | None,
        typer.Option(help="Folder or hub id of its SD 3 [SD 3.5 Medium, or as in the file]."),
    ] = None,
) -> None:
    """The published checkpoint to a checkpoint folder, and back, bit for bit; a token in its
    settings is dropped.
    """
    from satjepa.published.convert import convert

    typer.echo(f"wrote {convert(source, out, backbone)}")


@app.command()
@plainly
def inference(
    output_dir: Annotated[
        Path, typer.Option("--output_dir", "--output", help="Folder to write to.")
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Published .pth.tar or folder [the pipeline's, as in `forecast`]."),
    ] = None,
    input_tif: Annotated[
        Path | None,
        typer.Option(
            "--input_tif", "--input", help="RGB GeoTIFF [the last pair of each test region]."
        ),
    ] = None,
    gt_tif: Annotated[
        list[Path] | None,
        typer.Option("--gt_tif", help="The true next image, to score; repeated for further years."),
    ] = None,
    diffusion_steps: Annotated[
        int, typer.Option("--diffusion_steps", help="Steps of the sampler.")
    ] = 20,
    noise_strength: Annotated[
        float,
        typer.Option(
            "--noise_strength",
            help="Noise level to start from; the rest is the image. 1: pure noise.",
        ),
    ] = 0.35,
    multi_step: Annotated[
        int, typer.Option("--multi_step", help="Years, each forecast from the one before.")
    ] = 1,
    caption_dir: Annotated[
        Path | None,
        typer.Option("--caption_dir", help="captions.parquet or JSON files [captions by rule]."),
    ] = None,
    as_published: Annotated[
        bool,
        typer.Option(
            "--as-published",
            help="One step, the tile shrunk to one patch, as the published code does.",
        ),
    ] = False,
    samples: Annotated[int, typer.Option(min=1, help="Size of the ensemble.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same forecast.")] = 0,
    white: Annotated[
        float | None, typer.Option(min=1e-6, help="Value in [0, 1] shown as white.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Folder or hub id of SD 3 [the checkpoint's].")
    ] = None,
) -> None:
    """Forecast a tile as the published model card describes it: GeoTIFFs, a picture, scores against
    the truth.
    """
    from satjepa.assemble import the_device
    from satjepa.config import load_params
    from satjepa.published.card import load_model
    from satjepa.published.inference import How, held_out, run_inference

    path = checkpoint if checkpoint and checkpoint.is_file() else existing(checkpoint)
    model = load_model(path, the_device(), backbone)
    how = How(diffusion_steps, noise_strength, multi_step, samples, seed, as_published, white)
    found = [(input_tif, gt_tif or [])] if input_tif else held_out(load_params().data.presets[0])
    for tif, truths in found:
        run_inference(model, tif, output_dir, how, truths, caption_dir, typer.echo)


@data_app.command()
@plainly
def verify(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Roots of region folders [artifacts/scenes/*].")
    ] = None,
) -> None:
    """Read every scene completely; where a folder has a MANIFEST.sha256, compare every file with
    it.
    """
    from satjepa.data.manifest import NAME, verify_manifest
    from satjepa.data.scenes import find_scenes
    from satjepa.paths import root

    folders = folders or sorted(p for p in (root() / "artifacts/scenes").glob("*") if p.is_dir())
    if not folders:
        raise FileNotFoundError("no scenes in artifacts/scenes: run `make repro`, or name a folder")
    bad = 0
    for folder in folders:
        scenes = find_scenes(folder, on_bad="exclude")
        bad += len(scenes.excluded)
        hashed = (
            f"{verify_manifest(folder)} files as in {NAME}"
            if (folder / NAME).exists()
            else f"no {NAME}"
        )
        typer.echo(f"{folder}: {scenes.report()}; {hashed}")
    if bad:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
