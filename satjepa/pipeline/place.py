"""The images of a place as samples to train on: which years, on which scale, in which windows.

    <out>/cubes/<Region>.zarr    the years that are trained on, and no later one
    <out>/captions.parquet       of the images of all windows, by rule
    <out>/text/, <out>/latents/  their embeddings, and the images as the backbone's VAE has them

What lies there is used again: captions and embeddings where they are of the same pixels and words;
cubes and latents are made anew, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satjepa.captions import rules
from satjepa.captions.embeddings import TextEncoders
from satjepa.captions.store import TextStore
from satjepa.captions.table import RULES, lookup
from satjepa.captions.writing import Image, caption_patches
from satjepa.config import Params
from satjepa.contracts import PatchKey
from satjepa.data.cube import build_cube
from satjepa.data.display import display_white, is_display
from satjepa.data.draw import serving_years
from satjepa.data.pairs import PairDataset
from satjepa.data.scenes import Scene, SceneList, find_scenes, year_pairs
from satjepa.data.splits import SplitPart
from satjepa.data.stack import layout_of

if TYPE_CHECKING:
    import xarray as xr

    from satjepa.models.backbone import Backbone
    from satjepa.models.latents import LatentStore

BACK = "place-back"  # the same, of years that run backwards
PRESET = "place"  # the name that cubes, captions and latents of a place have in its keys
MOST = 1200  # windows of all regions and pairs of years, about: more take long and teach little


class PlaceError(Exception):
    """The images of a place cannot be trained on as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Place:
    """The scenes of a place that are trained on, by region, oldest first; `white` as `data.white`
    of params.yaml, None where all images are uint8; left_out: why a region is not in, by its name.
    """

    regions: Mapping[str, Sequence[Scene]]
    white: float | None
    left_out: Mapping[str, str]

    def years(self) -> dict[str, list[int]]:
        """The years that are trained on, by region."""
        years: dict[str, list[int]] = {name: [] for name in self.regions}
        for name, scenes in self.regions.items():
            years[name] += [scene.year for scene in scenes]
        return years

    def __str__(self) -> str:
        shown = [f"{name}: {', '.join(map(str, years))}" for name, years in self.years().items()]
        lost = [f"{name} is left out: {why}" for name, why in self.left_out.items()]
        return "\n".join([*shown, *lost])


def find_place(
    folder: str | Path,
    until: int | None = None,
    white: float | None = None,
    trained_white: float | None = None,
) -> Place:
    """The scenes below `folder`, which holds region folders, or is one, in the published layout;
    every file is read.

    until: the last year that is trained on; default, region by region: the first of the last two
    consecutive years, so that the other one can be forecast and compared. white: value in [0, 1]
    shown as white in images that are not uint8; default: `trained_white`, else what
    `display_white` says of the newest image.

    Raises SceneError for images that cannot be read or do not fit together; PlaceError where no
    region has two consecutive years to train on, or regions differ in what white is.
    """
    regions: dict[str, list[Scene]] = {}
    for scene in _scenes(Path(folder).resolve()):
        regions.setdefault(scene.region, []).append(scene)
    kept = {}
    left_out = {}
    for name, scenes in regions.items():
        years = [scene.year for scene in scenes]
        early = [scene for scene in scenes if scene.year <= _last(years, until)]
        if year_pairs(scene.year for scene in early):
            kept[name] = early
        else:
            left_out[name] = _why_not(years, until)
    if not kept:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise PlaceError(f"nothing to train on in {folder}: {reasons}")
    return Place(kept, _white(kept, white, trained_white), left_out)


def _scenes(folder: Path) -> SceneList:
    if any(layout_of(path) for path in folder.glob("*.[tT][iI][fF]*")):
        return find_scenes(folder.parent, [folder.name])
    return find_scenes(folder)


def _last(years: Sequence[int], until: int | None) -> int:
    """The last year that is trained on."""
    if until is not None:
        return until
    pairs = year_pairs(years)
    return pairs[-1][0] if pairs else min(years) - 1


def _why_not(years: Sequence[int], until: int | None) -> str:
    there = ", ".join(map(str, years))
    if not year_pairs(years):
        return f"of {there} no two years follow each other"
    if until is None:
        first, second = year_pairs(years)[-1]
        return (
            f"of {there} the last pair, {first} and {second}, is held back to compare with, and no "
            f"other two years up to {first} follow each other; --until {second} trains on all"
        )
    return f"of {there} no two years up to {until} follow each other"


def _white(
    regions: Mapping[str, Sequence[Scene]], white: float | None, trained: float | None
) -> float | None:
    """`data.white` for these scenes."""
    found: dict[float, str] = {}
    for name, scenes in regions.items():
        others = [scene.rgb for scene in scenes if not is_display(scene.rgb)]
        if others:
            value, why = display_white(others[-1], white, trained)
            found.setdefault(value, f"{name}: {value:g}, {why}")
    if len(found) > 1:
        raise PlaceError(
            f"what is white differs between regions ({'; '.join(found.values())}): pass --white, "
            "or train on one of them at a time"
        )
    return next(iter(found), trained)


def samples_of(
    place: Place,
    params: Params,
    backbone: Backbone,
    encoders: TextEncoders | None,
    out: str | Path,
    log: Callable[[str], None] = print,
    progress: bool = True,
    both_ways: bool = False,
) -> PairDataset:
    """The windows of a place, turned and mirrored, with captions, embeddings and latents.

    params: of the model that is to be trained. encoders: of the backbone's texts, None for a model
    that reads none. both_ways: each pair of years also from the later to the earlier one: a place
    has few pairs, each with a haze, a season and a processing of its own, and in one direction they
    would be learnt as what time brings.

    Raises PlaceError where no window of `data.patch` pixels is valid by half in two consecutive
    years.
    """
    out = Path(out)
    cubes = {}
    for name, scenes in place.regions.items():
        path = out / "cubes" / f"{name}.zarr"
        cubes[name] = build_cube(scenes, path, PRESET, white=place.white or 1.0)
    reasons = {name: serving_years(cube, params.data.patch)[1] for name, cube in cubes.items()}
    fit = [cubes[name] for name, why in reasons.items() if not why]
    lost = [f"{name}: {why}" for name, why in reasons.items() if why]
    if not fit:
        raise PlaceError(f"nothing to train on: {'; '.join(lost)}")
    for line in lost:
        log(f"left out, {line}")
    data = _windows(fit, params)
    pairs = len(data) * (2 if both_ways else 1)
    log(
        f"{pairs} samples of {data.patch}x{data.patch} px, {data.dropped} windows dropped as less "
        "than half of them is valid"
    )
    words = {} if encoders is None else _words(data, params, encoders, out, progress)
    latents = _latents(data, backbone, out / "latents")
    if not both_ways:
        return _windows(fit, params, data.stride, latents=latents, **words)
    return _there_and_back(fit, params, data, latents, words)


class _Windows(PairDataset):
    """All windows of some cubes at a stride."""

    def __init__(
        self, cubes: Sequence[xr.Dataset], params: Params, stride: int, **more: Any
    ) -> None:
        d = params.data
        self.stride = stride
        part = SplitPart("train", "region", frozenset(cube.attrs["region"] for cube in cubes))
        super().__init__(cubes, part, d.patch, stride, d.history, augment=True, **more)


def _windows(
    cubes: Sequence[xr.Dataset], params: Params, stride: int | None = None, **more: Any
) -> _Windows:
    """The windows at a stride, by default the smallest at which there are not too many."""
    if stride is not None:
        return _Windows(cubes, params, stride, **more)
    patch = params.data.patch
    stride = max(1, patch // 8)
    while len(data := _Windows(cubes, params, stride)) > MOST and 2 * stride <= patch:
        stride *= 2
    return data


def _there_and_back(
    cubes: Sequence[xr.Dataset], params: Params, data: _Windows, latents: LatentStore,
    words: dict[str, Any],
) -> _Windows:  # fmt: skip
    """The windows, and the same with the years in the other direction, where what was the last is
    the first: their images, and so captions and latents, are the same ones.
    """
    back = []
    ends = {}  # sum of the first and the last year of a region
    for cube in cubes:
        years = cube["year"].values
        ends[cube.attrs["region"]] = int(years[0] + years[-1])
        turned = cube.isel(year=slice(None, None, -1))
        turned = turned.assign_coords(year=(years[0] + years[-1] - years)[::-1])
        back.append(turned.assign_attrs(preset=BACK))

    def forward(key: Sequence) -> PatchKey:
        preset, region, year, x, y = key
        year = ends[region] - year if preset == BACK else year
        return PatchKey(PRESET, region, year, x, y)

    if words:
        written = words["captions"]
        turned = {
            key._replace(preset=BACK, year=ends[key.region] - key.year): text
            for key, text in written.items()
            if key.region in ends
        }
        words = words | {"captions": written | turned}
    every = [*cubes, *back]
    return _windows(every, params, data.stride, latents=lambda k: latents[forward(k)], **words)


def _words(
    data: _Windows, params: Params, encoders: TextEncoders, out: Path, progress: bool
) -> dict[str, Any]:
    """Captions by rule, their embeddings and lengths, as a `PairDataset` takes them."""
    c = params.captions
    table = out / "captions.parquet"
    keys = data.keys()

    def patches() -> Iterator[Image]:
        for key in keys:
            rgb, valid = data.image(key)
            yield key, rgb.numpy(), valid[0].numpy()

    caption_patches(
        patches(), lambda rgb, valid: rules.caption(rgb, valid, "display"), table, RULES,
        rules.PROMPT_VERSION, total=len(keys), progress=progress,
    )  # fmt: skip
    captions = lookup(table, RULES, rules.PROMPT_VERSION)
    texts = {text for key in keys for text in captions[key]}
    store = TextStore.write(out / "text", texts, encoders, c.max_length, progress=progress)
    lengths = c.lengths or (c.max_length,) * 3
    return {"captions": captions, "text": store, "lengths": lengths}


def _latents(data: _Windows, backbone: Backbone, folder: Path) -> LatentStore:
    from satjepa.models.latents import LatentStore, image_batches

    return LatentStore.write(folder, backbone, image_batches([(data, data.keys())], 64))
