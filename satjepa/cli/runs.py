"""Commands about models: train, evaluate, convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from satjepa.cli import common
from satjepa.cli.common import Checkpoint, app, plainly
from satjepa.paths import SCRATCH


@app.command()
@plainly
def train(
    run_dir: Annotated[Path, typer.Option(help="Folder of the run.")] = Path(SCRATCH),
    arm: Annotated[str | None, typer.Option(help="An arm of params.yaml.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the seed in params.yaml.")] = None,
    resume: Annotated[str, typer.Option(help="auto, no, or the folder of a checkpoint.")] = "auto",
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so long; the same command goes on.")
    ] = None,
) -> None:
    """Train a model on what the pipeline has prepared in artifacts/; Ctrl-C saves, the same command
    goes on.
    """
    from satjepa.assemble import build_model, dataset, with_caption_lengths
    from satjepa.config import load_params
    from satjepa.training.loop import train

    params = with_caption_lengths(load_params(arm=arm, seed=seed))
    data = dataset(params, "train", latents=True)
    limit = None if minutes is None else 60 * minutes
    typer.echo(
        f"finished: {train(build_model(params), data, params, run_dir, resume, max_seconds=limit)}"
    )


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
