"""Commands about models: train, evaluate, convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from satjepa.cli import common
from satjepa.cli.common import Checkpoint, app, plainly
from satjepa.paths import SCRATCH

PLACE = "runs/place"


Source = Annotated[
    Path | None,
    typer.Option("--from", help="Experimental: fine-tune the model in this folder, on --data."),
]
Scenes = Annotated[
    Path | None, typer.Option(help="With --from: folder of a region, or of several, to train on.")
]
Until = Annotated[
    int | None,
    typer.Option(help="With --from: the last year trained on [all but that of the last pair]."),
]
White = Annotated[
    float | None,
    typer.Option(help="With --from: value in [0, 1] shown as white [1 for uint8, else a guess]."),
]
Steps = Annotated[int | None, typer.Option(min=1, help="With --from: steps to train [15].")]
Rate = Annotated[
    float | None,
    typer.Option(min=0, help="With --from: share of the first training's learning rates [0.02]."),
]

OneWay = Annotated[
    bool, typer.Option("--one-way", help="With --from: no pair of years backwards, too.")
]


@app.command()
@plainly
def train(
    run_dir: Annotated[
        Path | None,
        typer.Option(
            "--run-dir", "--out", help="Folder of the run [runs/scratch; runs/place with --from]."
        ),
    ] = None,
    arm: Annotated[str | None, typer.Option(help="An arm of params.yaml.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the seed in params.yaml.")] = None,
    resume: Annotated[str, typer.Option(help="auto, no, or the folder of a checkpoint.")] = "auto",
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so long; the same command goes on.")
    ] = None,
    source: Source = None, data: Scenes = None, until: Until = None, white: White = None,
    steps: Steps = None, rate: Rate = None, one_way: OneWay = False,
) -> None:  # fmt: skip
    """Train a model on what the pipeline has prepared in artifacts/; Ctrl-C saves, the same command
    goes on.

    Experimental: --from and --data go on with a model on scenes of your own. At the default rate
    it gained 0.1 and 0.3 dB on the two real scenes measured; at 0.1 it gained 2 dB on one and lost
    3 dB on the other. The last image, taken as the forecast, had the better PSNR on both
    (docs/own_region.md).
    """
    limit = None if minutes is None else 60 * minutes
    tuning = {"until": until, "white": white, "steps": steps, "rate": rate}
    tuning["both_ways"] = False if one_way else None
    if source is not None and data is not None and arm is None:
        out = run_dir or Path(PLACE)
        done = _fine_tune(source, data, out, seed, tuning, resume=resume, max_seconds=limit)
        typer.echo(f"finished: {done}; forecast with it: --checkpoint {done}")
        return
    given = [name for name, value in tuning.items() if value is not None]
    if source is not None or data is not None or given:
        raise typer.BadParameter("--from and --data go together, without --arm; see --help")
    from satjepa.assemble import build_model, dataset, with_caption_lengths
    from satjepa.config import load_params
    from satjepa.training.loop import train

    params = with_caption_lengths(load_params(arm=arm, seed=seed))
    samples = dataset(params, "train", latents=True)
    done = train(
        build_model(params), samples, params, run_dir or SCRATCH, resume, max_seconds=limit
    )
    typer.echo(f"finished: {done}")


def _fine_tune(
    source: Path, data: Path, out: Path, seed: int | None, tuning: dict[str, Any], **more: Any
) -> Path:
    """`fine_tune`, of what was given and, where nothing was, its defaults."""
    from satjepa.pipeline.fine_tune import How, fine_tune

    how = {name: tuning.pop(name) for name in ("steps", "rate", "both_ways")} | {"seed": seed}
    chosen = How(**{name: value for name, value in how.items() if value is not None})
    return fine_tune(source, data, out, chosen, log=typer.echo, **tuning, **more)


@app.command()
@plainly
def evaluate(
    checkpoint: Checkpoint = None,
    out: Annotated[Path, typer.Option(help="CSV to write.")] = Path(SCRATCH, "scores.csv"),
) -> None:
    """Score a trained model on the held-out regions of every preset."""
    from satjepa.assemble import load_model
    from satjepa.config import load_params
    from satjepa.data.share import Share
    from satjepa.evaluation.score import score_run

    Share.mine()  # of several processes: each takes its GPU before a model goes to one
    scores = score_run(load_model(common.existing(checkpoint)), load_params(), out)
    typer.echo(scores.round(3).T.to_string())


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
