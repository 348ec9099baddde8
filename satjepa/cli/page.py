"""The command that makes a page of a forecast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from satjepa.cli.common import app, plainly

Folder = Annotated[Path, typer.Argument(help="Folder that satjepa forecast --out has written.")]
Images = Annotated[
    list[Path] | None,
    typer.Option(
        "--image",
        help="What the forecast was made from, once for each, oldest first [as its item says].",
    ),
]
Truths = Annotated[
    list[Path] | None,
    typer.Option("--truth", help="Image of a year forecast, to compare with; once for each."),
]


@app.command()
@plainly
def page(folder: Folder, image: Images = None, truth: Truths = None) -> None:
    """Make index.html of a forecast: one file to look at it in a browser, without a server."""
    from satjepa.forecast.page_folder import page_of
    from satjepa.forecast.request import local_file

    images = [local_file(path) for path in image or []]
    written = page_of(local_file(folder), images, [local_file(path) for path in truth or []])
    size = written.stat().st_size / 1e6
    typer.echo(f"wrote {written}: the page of it, {size:.1f} MB, to be opened in any browser")
