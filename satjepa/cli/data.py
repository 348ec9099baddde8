"""Commands about the data: `satjepa data get`, `satjepa data catalog`, `satjepa data verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from satjepa.cli.common import app, plainly

data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Get the data of a place, and check it."
)
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


What = Annotated[
    str | None, typer.Argument(help="Nothing, with --bbox; or `published`: the published data set.")
]
Bbox = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(help="West, south, east and north in degrees."),
]
Years = Annotated[str, typer.Option(help="As 2017-2024 or 2017,2019.")]
Out = Annotated[Path, typer.Option(help="Root of region folders to write into.")]
Months = Annotated[str | None, typer.Option(help="Season, as 5-9 or 11-3 [by the latitude].")]
MaxCloud = Annotated[
    float | None, typer.Option(min=0, max=100, help="Percent of clouds of an image [60].")
]
MinValid = Annotated[
    float | None, typer.Option(min=0, max=1, help="Share of valid pixels of a year [0.8].")
]
Stac = Annotated[
    str, typer.Option(help="earth-search, planetary-computer, a URL, or a catalog.json or folder.")
]
Collection = Annotated[
    str | None, typer.Option(help="Collection of Sentinel-2 L2A [sentinel-2-l2a].")
]
Name = Annotated[str | None, typer.Option(help="Name of the region [from its centre].")]
Embeddings = Annotated[
    bool, typer.Option(help="AlphaEarth's embeddings of each year beside the images, too.")
]
Index = Annotated[
    str | None,
    typer.Option(help="Index of AlphaEarth's tiles: a URL or a file [Source Cooperative]."),
]
Yes = Annotated[bool, typer.Option("--yes", help="However many bytes that is.")]


@data_app.command()
@plainly
def get(
    what: What = None,
    bbox: Bbox = None,
    years: Years = "2017-2024",
    out: Out = Path("data"),
    months: Months = None,
    max_cloud: MaxCloud = None,
    min_valid: MinValid = None,
    stac: Stac = "earth-search",
    collection: Collection = None,
    name: Name = None,
    embeddings: Embeddings = False,
    index: Index = None,
    yes: Yes = False,
) -> None:
    """Yearly cloud-free Sentinel-2 images of a box, as GeoTIFFs of the published layout: the median
    of the clear pixels of a season, from a STAC catalog. Run it again to go on after a stop.

        satjepa data get --bbox 5.97 50.48 6.03 50.52 --years 2019-2022 --out data
    """
    if what == "published":
        from satjepa.region.published import get_published

        get_published(out, [name] if name else None, log=typer.echo)
        return
    if what is not None:
        raise typer.BadParameter(f"{what!r}: say `published`, or give a --bbox")
    if bbox is None:
        raise typer.BadParameter("give --bbox W S E N, or say `published`")
    from satjepa.region.ask import ask
    from satjepa.region.get import get_region

    request = ask(
        bbox, years, out, months=months, max_cloud=max_cloud, min_valid=min_valid, stac=stac,
        collection=collection, name=name, yes=yes, log=typer.echo,
    )  # fmt: skip
    images = get_region(request)
    if embeddings:
        from satjepa.region.alphaearth import get_embeddings

        get_embeddings(images[0], request.years, request.folder, index, log=typer.echo)


@data_app.command()
@plainly
def catalog(
    out: Annotated[Path, typer.Argument(help="Folder to write into.")],
    years: Annotated[str, typer.Option(help="As 2019-2022.")] = "2019-2022",
) -> None:
    """Write a small STAC catalog of an invented land with its Sentinel-2 images, clouds and all, to
    try `satjepa data get` on without a network.
    """
    from satjepa.demo.catalog import write_catalog
    from satjepa.region.request import parse_years

    made = write_catalog(out, parse_years(years))
    box = " ".join(f"{value:.4f}" for value in made.bbox)
    typer.echo(
        f"{made.items} items in {made.path}; try:\n"
        f"satjepa data get --stac {made.path} --bbox {box} --years {years} --out {out / 'scenes'}"
    )
