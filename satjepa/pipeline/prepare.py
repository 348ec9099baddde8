"""The data stage: a recipe of the demo world, or a folder of real regions, to cubes and a split."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from satjepa.config import ConfigError, Params
from satjepa.data.cube import build_cube, cube_paths, open_cube
from satjepa.data.display import is_display
from satjepa.data.draw import make_split, unfit_regions
from satjepa.data.manifest import write_manifest
from satjepa.data.parallel import in_threads
from satjepa.data.scenes import find_scenes
from satjepa.demo.render import read_recipe, write_world
from satjepa.paths import CUBES, SCENES, SPLIT, root

RECIPE = "world.yaml"


@dataclass
class Report:
    """What the data stage did. regions: how many by preset; pixels: SHA-256 of the demo world;
    excluded: (file, reason) of what was left out of the cubes; unfit: why a region is in no part of
    the split, by its name; remarks: what is to be known of the images that are in.
    """

    regions: dict[str, int] = field(default_factory=dict)
    pixels: str | None = None
    excluded: list[tuple[str, str]] = field(default_factory=list)
    unfit: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{count} regions of {preset}" for preset, count in self.regions.items()]
        lines += [f"pixels sha256 {self.pixels}"] if self.pixels else []
        lines += [f"excluded {path}: {reason}" for path, reason in self.excluded]
        if self.unfit:
            lines.append(f"{len(self.unfit)} regions are in no part of the split")
        lines += [
            f"{region} is in no part of the split: {why}" for region, why in self.unfit.items()
        ]
        return "\n".join(lines + self.remarks)


def prepare(params: Params, progress: bool = True) -> Report:
    """Fill `artifacts/scenes` (demo world only), `artifacts/cubes` and `artifacts/split.json` from
    `data.root`.

    With `world.yaml` in `data.root` its regions are simulated, listed in a manifest (`satjepa data
    verify` reads it), and its split is used. Otherwise `data.root` holds region folders, which make
    one preset with the name that `data.presets` gives: ConfigError for more than one. Raises
    SceneError for bad input, unless `data.on_bad_scene` is "exclude". ConfigError where images are
    not uint8 and `data.white` does not say what in them is white. A region that gives no sample, as
    it is smaller than a patch for one, is in no part of the split; ValueError where too few others
    are left.
    """
    report = Report()
    source = root() / params.data.root
    if (source / RECIPE).exists():
        recipe = read_recipe(source / RECIPE)
        folders = _simulated(recipe, params, report, progress)
        named = recipe["regions"]
    else:
        folders = _own(source, params)
        named = {}
    cubes = root() / CUBES
    for preset, folder in folders.items():
        report.regions[preset] = _cubes(folder, cubes / preset, params, report)
    _split(cubes / params.data.presets[0], named, params, report)
    return report


def _simulated(recipe: dict, params: Params, report: Report, progress: bool) -> dict[str, Path]:
    """Write the scenes of the demo world; their folders by preset."""
    scenes = root() / SCENES
    recipe["presets"] = {name: recipe["presets"][name] for name in params.data.presets}
    shutil.rmtree(scenes, ignore_errors=True)
    report.pixels = write_world(recipe, scenes, progress)
    folders = {preset: scenes / preset for preset in params.data.presets}
    for folder in folders.values():
        write_manifest(folder)
    return folders


def _own(source: Path, params: Params) -> dict[str, Path]:
    """The folder of one's own regions, by the name of the only preset."""
    if len(params.data.presets) > 1:
        found = f"{list(params.data.presets)}, but {params.data.root} holds no {RECIPE}"
        raise ConfigError(
            "data.presets", found, "one name of your choice, such as [mine], for folders of regions"
        )
    scenes = root() / SCENES
    shutil.rmtree(scenes, ignore_errors=True)
    scenes.mkdir(parents=True)  # an out of the stage, empty: the scenes are where they are
    return {params.data.presets[0]: source}


def _split(
    folder: Path, named: Mapping[str, Sequence[str]], params: Params, report: Report
) -> None:
    """Draw the split of the cubes in a folder, or take it as `named`, and write it."""
    cubes = [open_cube(path) for path in cube_paths(folder)]
    report.unfit |= unfit_regions(cubes, params.data.patch)
    split = make_split(
        cubes,
        params.data.split,
        params.seed,
        val=named.get("val", params.data.val_regions),
        test=named.get("test", params.data.test_regions),
        train=named.get("train"),
        patch=params.data.patch,
    )
    split.save(root() / SPLIT)


def _cubes(folder: Path, out: Path, params: Params, report: Report) -> int:
    """One cube for each region below `folder`; returns how many."""
    shutil.rmtree(out, ignore_errors=True)
    regions: dict[str, list] = {}
    found = find_scenes(
        folder, on_bad=params.data.on_bad_scene, check=report.pixels is None
    )  # what we have just written needs no second reading
    other = next((scene.rgb for scene in found if not is_display(scene.rgb)), None)
    if other is not None and params.data.white is None:
        accepted = "0.3558 if such images are reflectance, 1.0 if they were stretched for display"
        raise ConfigError("data.white", f"null, but {other} is not uint8", accepted)
    report.excluded += [(str(path), str(error)) for path, error in found.excluded]
    report.remarks += found.remarks
    for scene in found:
        regions.setdefault(scene.region, []).append(scene)
    white = params.data.white or 1.0
    for _ in in_threads(
        lambda name: build_cube(regions[name], out / f"{name}.zarr", white=white), regions
    ):
        pass
    return len(regions)
