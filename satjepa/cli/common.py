"""The application, and what its commands share: errors in one line, the checkpoint meant, the
model in it.
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

Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a checkpoint [default: runs/joint/<first of ablate.seeds>/model]."
    ),
]
Samples = Annotated[int, typer.Option(min=1, help="Size of the ensemble.")]
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
    if Path(local(found.header["config"]["backbone"]["path"])).is_dir():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # no bars for files read in a blink
    name = found.state["sha256"][checkpoint.MODEL][:12]
    return from_checkpoint(found, the_device(), sample=sample), name
