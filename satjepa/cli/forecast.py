"""`satjepa forecast`: from the images of a scene, or of many, to the years after the last."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from satjepa.cli import common
from satjepa.cli.common import Checkpoint, Samples, Seed, White, app, plainly

if TYPE_CHECKING:
    from satjepa.data.share import Share
    from satjepa.forecast.folder import Target
    from satjepa.forecast.load import Model
    from satjepa.forecast.made import Made
    from satjepa.forecast.raster import Settings

Images = Annotated[
    list[Path] | None, typer.Argument(help="RGB GeoTIFFs of one place, one a year, oldest first.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="GeoTIFF to write: mean and spread of red, green, blue [forecast_<YEAR>.tif]; or a "
        "folder, for Cloud-Optimized GeoTIFFs, a STAC item and a page (index.html)."
    ),
]
Example = Annotated[bool, typer.Option("--example", help="Forecast the example scene.")]
Picture = Annotated[Path | None, typer.Option(help="PNG to write [beside the GeoTIFF].")]
NoPicture = Annotated[bool, typer.Option("--no-picture", help="Write no PNG and no page.")]
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
    typer.Option(
        "--written",
        help="Lead each member of each tile by a caption of its own, which the model's writer "
        "draws; write them, too (CSV).",
    ),
]
Years = Annotated[
    list[int] | None,
    typer.Option(help="Year of the last image, or repeated for each [from the names]."),
]
Members = Annotated[
    bool, typer.Option("--members", help="Write each member, too; --out is a folder.")
]
Ahead = Annotated[
    int, typer.Option("--years", min=1, help="Years to forecast, each from the one before.")
]
Scenes = Annotated[
    Path | None,
    typer.Option(
        help="Folder of scenes, <Region>/s2_rgb_<Region>_<YEAR>_10km.tif: each is forecast, to "
        "<out>/<Region>/ [forecasts]."
    ),
]


@app.command()
@plainly
def forecast(
    images: Images = None, out: Out = None, example: Example = False, samples: Samples = None,
    seed: Seed = 0, checkpoint: Checkpoint = None, picture: Picture = None,
    no_picture: NoPicture = False, truth: Truth = None, white: White = None, steps: Steps = None,
    guidance: Guidance = None, strength: Strength = None, compiled: Compile = None,
    caption: Words = None, informative: What = None, geometric: Layout = None, year: Years = None,
    members: Members = False, years: Ahead = 1, scenes: Scenes = None, written: Written = False,
) -> None:  # fmt: skip
    """Forecast the year after the last of the images, on their grid and in their units; draw it."""
    from satjepa.data.share import Share
    from satjepa.forecast.folder import target_of
    from satjepa.forecast.load import load
    from satjepa.forecast.picture import check_truth

    if [bool(images), example, scenes is not None].count(True) != 1:
        raise typer.BadParameter("name images, oldest first, or pass --example, or --scenes DIR")
    share = Share.mine()
    say = typer.echo if share.rank == 0 else _nothing
    files = {"with_picture": not no_picture, "members": members, "years": years, "written": written}
    if scenes is not None:
        if truth or picture or year:
            raise typer.BadParameter("--truth, --picture and --year are of one scene")
        targets = _targets(scenes, out or Path("forecasts"), files)
    else:
        if example:
            images, example_truth = _example(say)
            truth = truth or example_truth
        targets = [target_of(images, out, year, picture, **files)]  # before a model is loaded
        if truth:
            check_truth(targets[0].request, truth)
    folder = common.existing(checkpoint)
    how = {"steps": steps, "guidance": guidance, "strength": strength, "compile": compiled}
    model = load(folder, written=written, **how)
    say(f"model {folder} ({model.name}); {model.sampler}")
    given = _given(semantic=caption, informative=informative, geometric=geometric)
    settings = model.settings(samples, seed, white, given, years=years)
    if remark := model.remark():
        say(remark)
    alone = len(targets) > 1  # then each process has scenes of its own
    for target in share.of(targets) if alone else targets:
        _run(target, model, settings, truth, Share() if alone else share)


def _given(**words: str | None) -> dict[str, str]:
    """The captions that are given, by kind."""
    return {kind: text for kind, text in words.items() if text is not None}


def _targets(scenes: Path, out: Path, files: dict) -> list[Target]:
    """What is to be written of each scene below a folder."""
    from satjepa.forecast.folder import scenes_of, target_of
    from satjepa.forecast.request import check_folder

    check_folder(out)
    found = scenes_of(scenes).items()
    return [target_of(images, out / region, is_folder=True, **files) for region, images in found]


def _run(
    target: Target, model: Model, settings: Settings, truth: Path | None, share: Share
) -> None:
    """Forecast one scene, and write, draw and compare what is asked for."""
    from dataclasses import replace

    from satjepa.forecast.raster import forecasting

    say = typer.echo if share.rank == 0 else _nothing
    started = time.perf_counter()
    settings = replace(settings, kept=target.kept(settings.samples))
    request = target.request
    with forecasting(request, model.forecaster, settings, target.anchor, say, share) as made:
        if share.rank:
            return
        files = target.write(made)
        seconds = time.perf_counter() - started
        which = f"year {made.year()}" if target.years == 1 else f"{target.years} years"
        kinds = "mean, spread and members" if target.members else "mean and spread"
        what = f"{len(files)} files in {target.out}" if target.is_folder else target.out
        say(f"wrote {what}: forecast of {which}, {kinds}, in {seconds:.1f} s")
        if target.written:
            say("what led each member of each tile is in " + target.sentences().name)
        _show(made, target, files, truth, say)


def _nothing(line: str) -> None:
    """What processes but the first say."""


def _example(say: Callable[[str], None]) -> tuple[list[Path], Path]:
    """The shipped scene and its truth; says what to type for the same."""
    from satjepa.demo.example import shipped_scene

    images, truth = shipped_scene()
    folder = images[0].parent
    here = Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    say(f"example: satjepa forecast {shown}/*.tif --truth {shown}/truth/{truth.name}")
    return images, truth


def _show(
    made: Made, target: Target, files: list[Path], truth: Path | None, say: Callable[[str], None]
) -> None:
    """Draw a forecast, written to files, and compare it with the truth, as far as is asked for."""
    from satjepa.forecast.page_folder import page_of
    from satjepa.forecast.picture import middle, psnr, read_truth, save_picture, truth_of, view_of

    image = None if truth is None else truth_of(made, truth)
    if target.picture is not None and target.is_folder:
        seen = [] if truth is None else [truth]
        page = page_of(target.out, made.scene.images, seen, files=files)
        say(f"wrote {page}: all of it to look at, in any browser")
    elif target.picture is not None:
        window = middle(made.shape)
        view = view_of(made, window, None if image is None else read_truth(image, window))
        say(f"wrote {save_picture(view, target.picture)}: the picture of it")
    if image is not None:
        ours, persistence = psnr(made, image)
        say(
            f"against {truth.name}: PSNR {ours:.2f} dB; the last image taken as the forecast has "
            f"{persistence:.2f} dB"
        )
