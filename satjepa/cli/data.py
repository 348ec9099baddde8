"""Commands about the data: `satjepa data verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from satjepa.cli.common import app, plainly

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check the data.")
app.add_typer(data_app, name="data")


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
    from satjepa.paths import SCENES, root

    folders = folders or sorted(p for p in (root() / SCENES).glob("*") if p.is_dir())
    if not folders:
        raise FileNotFoundError(f"no scenes in {SCENES}: run `make repro`, or name a folder")
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
