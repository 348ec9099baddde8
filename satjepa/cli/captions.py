"""Commands about captioners: `satjepa captions import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from satjepa.cli.common import app, plainly

captions_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Vision-language models that write captions."
)
app.add_typer(captions_app, name="captions")


@captions_app.command("import")
@plainly
def import_(
    source: Annotated[
        str,
        typer.Argument(help="EarthDial's checkpoint: a folder, or akshaydudhane/EarthDial_4B_RGB."),
    ],
    folder: Annotated[Path, typer.Argument(help="Folder to make. Must not exist.")],
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch of the hub repository [its newest].")
    ] = None,
) -> None:
    """EarthDial's checkpoint to a folder that transformers loads without remote code."""
    from satjepa.captions.earthdial import import_earthdial
    from satjepa.paths import root

    made = import_earthdial(source, folder, revision)
    named = made.relative_to(root()) if made.is_relative_to(root()) else made
    typer.echo(f"wrote {made}. To caption with it, set captions.captioner: {named} in params.yaml")
