"""The application, and what its commands share: errors in one line, the checkpoint meant."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None, help="Forecast next year's Sentinel-2 image of a place.",
)  # fmt: skip

Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a checkpoint [default: runs/<first of arms>-<first of seeds>/model of the "
        "pipeline, else assets/demo_model, which is shipped]."
    ),
]
Samples = Annotated[
    int | None, typer.Option(min=1, help="Size of the ensemble [that of params.yaml].")
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same forecast.")]
White = Annotated[
    float | None,
    typer.Option(help="Value in [0, 1] shown as white [1 for uint8, else as in training]."),
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
    """The checkpoint asked for, or the one the pipeline leaves, or the shipped one; CheckpointError
    says what to do where there is none.
    """
    from satjepa.forecast.load import CURE, default_checkpoint
    from satjepa.training import checkpoint

    folder = folder or default_checkpoint()
    if not checkpoint.exists(folder):
        raise checkpoint.CheckpointError(f"no checkpoint at {folder}: {CURE}")
    return folder
