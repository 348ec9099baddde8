"""Find and check the GeoTIFFs of the published layout, one folder a region, one scene a year.

    <root>/<Region>/s2_rgb_<Region>_<YEAR>_10km.tif  3 bands (see rasters.rgb_scale for the accepted
        scales)
    <root>/<Region>/gee_embeddings_<Region>_<YEAR>_10km.tif  64 bands, optional; `embedding_` is
        accepted as well
    <root>/<Region>/truth/<layer>_<Region>_<YEAR>.tif         of the demo world only

The name of the folder is the region. Files with other names, and embeddings of a year without RGB,
are no scene.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from satjepa.data.alphaearth import BANDS, read_alphaearth
from satjepa.data.errors import (
    DuplicateYearError,
    EmptyRegionError,
    GridMismatchError,
    MissingYearError,
    SceneError,
)
from satjepa.data.grid import Grid
from satjepa.data.rasters import facts, read_uint8, rgb_scale
from satjepa.data.remarks import remarks

LAYOUT = "<Region>/s2_rgb_<Region>_<YEAR>_10km.tif"
TRUTH_BANDS = {"oracle_mean": 3, "oracle_sample": 3, "process": 1}
_RGB = re.compile(r"s2_rgb_.+_((?:19|20)\d\d)(?:\D.*)?\.tiff?", re.IGNORECASE)
_EMB = re.compile(r"(?:gee_embeddings|embedding)_.+_((?:19|20)\d\d)(?:\D.*)?\.tiff?", re.IGNORECASE)


@dataclass(frozen=True)
class Scene:
    """One year of one region: RGB file, AlphaEarth file if there is one, truth folder if that has
    the year.
    """

    region: str
    year: int
    rgb: Path
    emb: Path | None = None
    truth: Path | None = None


class SceneList(list[Scene]):
    """Scenes sorted by region and year; what was left out: `excluded`, a list of (path,
    SceneError); and what is to be known of those that are kept: `remarks`, a list of sentences.
    """

    def __init__(
        self, scenes: Iterable[Scene] = (), excluded: Sequence[tuple[Path, SceneError]] = ()
    ) -> None:
        super().__init__(scenes)
        self.excluded = list(excluded)
        self.remarks: list[str] = []

    def report(self) -> str:
        """How many scenes are kept and, line by line, what was excluded and why, and the
        remarks.
        """
        lines = [f"{len(self)} scenes kept, {len(self.excluded)} excluded"]
        lines += [f"{type(error).__name__}: {error}" for _, error in self.excluded]
        return "\n  ".join(lines + self.remarks)


def find_scenes(
    root: str | Path,
    regions: Sequence[str] | None = None,
    *,
    on_bad: Literal["error", "exclude"] = "error",
    check: bool = True,
) -> SceneList:
    """All scenes below `root` (or of the named `regions`), sorted by region and year.

    With `check` every file is read completely and compared with its region's grid (the most
    frequent one, the earliest on a tie); without, only names are looked at. `on_bad="error"` raises
    the first SceneError. `on_bad="exclude"` leaves the whole scene out (both files of a doubled
    year; a scene whose embedding or truth is bad) and lists each error in `.excluded`. A year left
    out or absent is a gap: it forms no pair with its neighbours (`year_pairs`). A root without any
    region folder raises EmptyRegionError in both modes. Folders whose name begins with a dot or an
    underscore are no regions; where such a one holds yearly images, `.remarks` says so, as it says
    with `check` what is to be known of the images (`satjepa.data.remarks`).
    """
    root = Path(root)
    found = SceneList()
    folders = [root / name for name in regions] if regions else _folders(root)
    found.remarks += [] if regions else _passed_over(root)

    def bad(error: SceneError) -> None:
        if on_bad == "error":
            raise error
        found.excluded.append((error.path, error))

    for folder in folders:
        scenes = _list_scenes(folder, bad)
        if check:
            scenes = _checked(scenes, bad)
            found.remarks += remarks([scene.rgb for scene in scenes])
        found.extend(scenes)
    return found


def _passed_over(root: Path) -> list[str]:
    """A remark on each folder that is no region by its name alone."""
    remarks = []
    for folder in sorted(path for path in root.glob("[._]*") if path.is_dir()):
        if any(_RGB.fullmatch(path.name) for path in folder.iterdir()):
            first = folder.name[0]
            remarks.append(
                f"{folder}: left out, as its name begins with {first!r}; rename it to use it"
            )
    return remarks


def _folders(root: Path) -> list[Path]:
    folders = sorted(p for p in root.glob("[!._]*") if p.is_dir())
    if not folders:
        raise EmptyRegionError(
            root, "no region folder", LAYOUT, "point data.root at the folder of the regions"
        )
    return folders


def _list_scenes(folder: Path, bad: Callable[[SceneError], None]) -> list[Scene]:
    """Scenes of a region by file name; years with two files of a kind are reported and left out."""
    files = sorted(p for p in folder.glob("*") if p.is_file())
    rgb = _by_year(files, _RGB)
    emb = _by_year(files, _EMB)
    if not rgb:
        names = ", ".join(p.name for p in files[:3]) or "nothing"
        fix = "put the yearly GeoTIFFs there, rename them, or name the regions to use"
        bad(EmptyRegionError(folder, f"no yearly RGB raster ({names})", LAYOUT, fix))
    doubled = [paths for paths in (*rgb.values(), *emb.values()) if len(paths) > 1]
    for paths in doubled:
        others = " and ".join(p.name for p in paths[:-1])
        bad(
            DuplicateYearError(
                paths[-1], f"the same year as {others}", "one file a year", "remove all but one"
            )
        )
    lost = {year for kind in (rgb, emb) for year, paths in kind.items() if paths in doubled}
    return [
        _scene(folder, year, rgb[year][0], emb.get(year, [None])[0])
        for year in sorted(rgb.keys() - lost)
    ]


def _by_year(files: list[Path], pattern: re.Pattern[str]) -> dict[int, list[Path]]:
    years: dict[int, list[Path]] = {}
    for path in files:
        if match := pattern.fullmatch(path.name):
            years.setdefault(int(match[1]), []).append(path)
    return years


def _scene(folder: Path, year: int, rgb: Path, emb: Path | None) -> Scene:
    scene = Scene(folder.name, year, rgb, emb, folder / "truth")
    has_truth = any(truth_file(scene, layer).exists() for layer in TRUTH_BANDS)
    return scene if has_truth else Scene(folder.name, year, rgb, emb)


def truth_file(scene: Scene, layer: str) -> Path:
    """Where the truth layer (a key of TRUTH_BANDS) of a scene with a truth folder lies."""
    return scene.truth / f"{layer}_{scene.region}_{scene.year}.tif"


def _rasters(scene: Scene) -> list[tuple[Path, int]]:
    """All files of a scene with their numbers of bands."""
    embedding = [(scene.emb, BANDS)] if scene.emb else []
    truth = (
        [(truth_file(scene, layer), bands) for layer, bands in TRUTH_BANDS.items()]
        if scene.truth
        else []
    )
    return [(scene.rgb, 3), *embedding, *truth]


def check_scene(scene: Scene) -> Grid:
    """Read all files of a scene completely and return their grid; raises what is wrong first, a
    SceneError.
    """
    for path, _ in _rasters(scene):
        if not path.exists():
            fix = "make the scenes again" if path != scene.rgb else "fetch the file"
            raise MissingYearError(
                path, "no such file", f"every layer of {scene.region} {scene.year}", fix
            )
    grid = facts(scene.rgb, 3).grid
    rgb_scale(scene.rgb)
    if scene.emb:
        read_alphaearth(scene.emb)
    for layer, bands in TRUTH_BANDS.items() if scene.truth else ():
        read_uint8(truth_file(scene, layer), bands)
    for path, bands in _rasters(scene)[1:]:
        if wrong := _mismatch(grid, facts(path, bands).grid, path, scene.rgb):
            raise wrong
    return grid


def _mismatch(grid: Grid, other: Grid, path: Path, reference: Path) -> GridMismatchError | None:
    difference = grid.difference(other)
    fix = (
        "warp the file to the grid of the others (gdalwarp -t_srs -te -ts), or exclude it "
        "(on_bad_scene: exclude)"
    )
    return (
        GridMismatchError(path, difference, f"the grid of {reference.name}", fix)
        if difference
        else None
    )


def common_grid(scenes: Sequence[Scene]) -> Grid:
    """Check all scenes of one region (`check_scene`) and return the grid they share; raises
    GridMismatchError.
    """

    def bad(error: SceneError) -> None:
        raise error

    return check_scene(_checked(scenes, bad)[0])


def _checked(scenes: Sequence[Scene], bad: Callable[[SceneError], None]) -> list[Scene]:
    """The scenes of one region that can be read and share a grid; what is wrong with the others is
    given to `bad`.
    """
    grids: dict[Scene, Grid] = {}
    for scene in scenes:
        try:
            grids[scene] = check_scene(scene)
        except SceneError as error:
            bad(error)
    if not grids:
        return []
    reference = _most_usual(grids)
    for scene, grid in list(grids.items()):
        if wrong := _mismatch(grids[reference], grid, scene.rgb, reference.rgb):
            bad(wrong)
            del grids[scene]
    return list(grids)


def _most_usual(grids: dict[Scene, Grid]) -> Scene:
    """The first scene of the grid that most scenes lie on, however each file spells it; of equally
    frequent ones, the earliest.
    """
    votes: dict[Scene, int] = {}  # by the first scene of each grid
    for scene, grid in grids.items():
        first = next((s for s in votes if not grids[s].difference(grid)), scene)
        votes[first] = votes.get(first, 0) + 1
    return max(votes, key=votes.get)


def year_pairs(years: Iterable[int]) -> list[tuple[int, int]]:
    """Consecutive years (t, t+1), both present: a gap is never bridged. [2010, 2012, 2013] gives
    [(2012, 2013)].
    """
    present = set(years)
    return [(year, year + 1) for year in sorted(present) if year + 1 in present]
