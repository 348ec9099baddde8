"""Where a forecast goes: one GeoTIFF, or a folder of Cloud-Optimized ones with a STAC item; and the
scenes of a whole data set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from satjepa.data.stack import ForecastError, layout_of
from satjepa.forecast.blend import Kept
from satjepa.forecast.made import Made
from satjepa.forecast.picture import MEMBERS, middle, save_picture, view_of
from satjepa.forecast.request import Request, check_files, check_output
from satjepa.forecast.stac import item_of
from satjepa.paths import write_text

LONGEST = "forecast_next_year.tif"


@dataclass(frozen=True)
class Target:
    """What is to be written of the forecast of a request.

    out: a GeoTIFF, or with `is_folder` the folder of forecast_<YEAR>.tif, forecast_<YEAR>.json and
    forecast_<YEAR>.png for each of `years` years, with `members` also of member_<k>_<YEAR>.tif.
    picture: PNG of a single GeoTIFF; None is none. written: the sentences that led the members are
    to be told, in sentences_<YEAR>.csv of the folder or beside a single GeoTIFF.
    """

    request: Request
    out: Path
    is_folder: bool = False
    members: bool = False
    years: int = 1
    picture: Path | None = None
    written: bool = False

    @property
    def anchor(self) -> Path:
        """The file beside which the rows of the work are kept."""
        return self.file("forecast", 0) if self.is_folder else self.out

    def year(self, ahead: int) -> str:
        """The year of a forecast as it stands in a name."""
        last = self.request.years[-1]
        if last is None:
            return "next_year" if ahead == 0 else f"next_year_{ahead + 1}"
        return str(last + 1 + ahead)

    def file(self, kind: str, ahead: int, suffix: str = ".tif") -> Path:
        """A file of the folder."""
        return self.out / f"{kind}_{self.year(ahead)}{suffix}"

    def sentences(self, ahead: int = 0) -> Path:
        """The file of what led the members."""
        beside = self.out.with_suffix(".sentences.csv")
        return self.file("sentences", ahead, ".csv") if self.is_folder else beside

    def kept(self, samples: int) -> Kept:
        """The members that are needed: all for their files, else those of the picture."""
        if self.members:
            return Kept(samples, 0, self.request.shape[1])
        left, _, width, _ = middle(self.request.shape)
        return Kept(min(MEMBERS, samples), left, left + width)

    def write(self, made: Made) -> list[Path]:
        """Write the files, the picture of a single GeoTIFF apart; returns their names."""
        if not self.is_folder:
            written = [made.write_sentences(self.sentences())] if self.written else []
            return [made.write(self.out), *written]
        return [file for ahead in range(self.years) for file in self._write_year(made, ahead)]

    def _write_year(self, made: Made, ahead: int) -> list[Path]:
        files = [made.write(self.file("forecast", ahead), ahead, cloud=True)]
        for number in range(made.kept.count if self.members else 0):
            name = self.file(f"member_{number + 1}", ahead)
            files.append(made.write_member(name, number, ahead))
        members = [file.name for file in files[1:]]
        told = made.write_sentences(self.sentences(ahead), ahead) if self.written else None
        files += [told] if told else []
        picture = None
        if self.picture is not None:
            view = view_of(made, middle(made.shape), ahead=ahead)
            picture = save_picture(view, self.file("forecast", ahead, ".png"))
            files.append(picture)
        if self.request.years[-1] is not None:
            names = (picture and picture.name, told and told.name)
            item = item_of(made, ahead, files[0], members, *names)
            file = self.file("forecast", ahead, ".json")
            write_text(file, json.dumps(item, indent=1, allow_nan=False) + "\n")
            files.append(file)
        return files


def target_of(
    images: Sequence[str | Path], out: Path | None, year: Sequence[int] | None = None,
    picture: Path | None = None, with_picture: bool = True, members: bool = False, years: int = 1,
    is_folder: bool = False, written: bool = False,
) -> Target:  # fmt: skip
    """Look at the images and at all that is to be written; what `check_files` and `check_output`
    raise.

    out: a folder that is there, a name without a suffix, or any with `is_folder`, is a folder; None
    is forecast_<YEAR>.tif here.
    """
    folder = out is not None and (is_folder or out.is_dir() or not out.suffix)
    if not folder and (members or years > 1):
        what = "--members" if members else f"--years {years}"
        raise ForecastError(f"{what} makes several files: name a folder (--out DIR)")
    if folder and picture is not None:
        raise ForecastError(f"{picture}: a folder has its pictures beside its forecasts")
    request = check_files(images, out / LONGEST if folder else out, year)
    target = Target(request, out or Path(), folder, members, years, written=written)
    if folder:
        shown = Path("forecast.png") if with_picture else None
        for ahead in range(years):
            check_output(target.file("forecast", ahead), request.images)
            if written:
                check_output(target.sentences(ahead), request.images)
        return replace(target, picture=shown)
    out = out or Path(f"forecast_{target.year(0)}.tif")
    picture = (picture or out.with_suffix(".png")) if with_picture else None
    check_output(out, request.images)
    if picture == out:
        raise ForecastError(f"{out} cannot be both the GeoTIFF and its picture")
    if picture:
        check_output(picture, request.images)
    target = replace(target, out=out, picture=picture)
    if written:
        check_output(target.sentences(), request.images)
    return target


def scenes_of(root: Path) -> dict[str, list[Path]]:
    """Region -> its images, oldest first, in the published layout below a folder:
    <Region>/s2_rgb_<Region>_<YEAR>_10km.tif. ForecastError where there is none, or two of a year.
    """
    scenes: dict[str, dict[int, Path]] = {}
    for path in sorted(root.glob("*/s2_rgb_*.tif")):  # of a region by year
        found = layout_of(path)
        if found is None or found[0] != path.parent.name:
            continue
        region, year = found
        if year in scenes.setdefault(region, {}):
            raise ForecastError(f"{path} and {scenes[region][year].name} are of one year: keep one")
        scenes[region][year] = path
    if not scenes:
        raise ForecastError(f"{root}: no <Region>/s2_rgb_<Region>_<YEAR>_10km.tif below it")
    return {region: list(images.values()) for region, images in scenes.items()}
