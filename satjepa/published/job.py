"""What `satjepa inference` is asked to do, looked at before the work: settings, tile, true images,
files to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from satjepa.data.rasters import rgb_scale
from satjepa.data.stack import ForecastError, check_grid, years_of
from satjepa.forecast.request import Request, check_folder, check_images, check_output, local_file
from satjepa.forecast.write import check_place
from satjepa.models.published import STEPS, STRENGTH
from satjepa.paths import SCENES, SPLIT, root
from satjepa.published.found_captions import place_of

if TYPE_CHECKING:
    from satjepa.config import Params


@dataclass(frozen=True)
class Settings:
    """How a tile is forecast.

    multi_step: years, each forecast from the one before. white: value in [0, 1] shown as 1; None:
    `display_white`, trained on 1 where the checkpoint is imported, as the published code does not
    stretch.
    """

    steps: int = STEPS
    strength: float = STRENGTH
    multi_step: int = 1
    samples: int = 1
    seed: int = 0
    as_published: bool = False
    white: float | None = None


AS_THE_CARD = Settings()


@dataclass(frozen=True)
class Job:
    """A tile that can be forecast (`request`), the true images of the years after, where to write,
    how.
    """

    request: Request
    truths: tuple[Path, ...]
    out_dir: Path
    settings: Settings

    @property
    def tif(self) -> Path:
        """The tile."""
        return self.request.images[0]

    @property
    def year(self) -> int | None:
        """The year of the tile."""
        return self.request.years[0]

    def file(self, what: str) -> Path:
        """The file of the output folder whose name ends so."""
        return self.out_dir / f"{self.tif.stem}_{what}"

    def image(self, ahead: int) -> Path:
        """The file of the forecast so many years ahead."""
        suffix = "png" if self.settings.as_published else "tif"
        return self.file(f"{label(self.year, ahead)}.{suffix}")


def check_inference(
    tif: str | Path, out_dir: str | Path, settings: Settings = AS_THE_CARD,
    truths: Sequence[str | Path] = (), year: int | None = None,
) -> Job:  # fmt: skip
    """Look at everything that the files alone can tell, before a model is loaded.

    Raises ForecastError, SceneError, FileNotFoundError.
    """
    if settings.multi_step < 1 or len(truths) > settings.multi_step:
        raise ForecastError(
            f"{settings.multi_step} years with {len(truths)} true images: at least one year, an "
            "image each"
        )
    tif = local_file(tif)
    truths = tuple(local_file(truth) for truth in truths)
    out_dir = local_file(out_dir)
    check_folder(out_dir)
    named = place_of(tif, year)[1]
    years = years_of([tif], None if named is None else [named])
    request = Request((tif,), years, check_images([tif]))
    job = Job(request, truths, out_dir, settings)
    for truth in truths:
        rgb_scale(truth)
    spare = 0
    if not settings.as_published:
        check_grid(request.place, tif, truths)
        spare = check_place(request.place, tif)
    for ahead in range(1, settings.multi_step + 1):
        check_output(job.image(ahead), (tif, *truths), spare)
    for what in ("panel.png", "metrics.json"):
        check_output(job.file(what), (tif, *truths))
    return job


def label(year: int | None, ahead: int) -> str:
    """What stands for a forecast in file names and figures: its year, or t+1, t+2, ... where t is
    not known.
    """
    return f"t+{ahead}" if year is None else str(year + ahead)


def held_out(params: Params) -> list[tuple[Path, list[Path]]]:
    """What there is to forecast without an input: of each test region of the first preset the last
    year with a next one, and that next one, alone in its list.

    The regions are those of the demo world, or one's own in `data.root`. FileNotFoundError where
    neither is there.
    """
    from satjepa.assemble import open_split
    from satjepa.data.scenes import find_scenes, year_pairs

    simulated = root() / SCENES / params.data.presets[0]
    own = root() / params.data.root
    scenes = simulated if simulated.is_dir() else own
    split = root() / SPLIT
    if not (scenes.is_dir() and (split.is_file() or simulated.is_dir())):
        raise FileNotFoundError(
            f"no scenes in {simulated}, and none prepared from {own}: name a GeoTIFF with "
            "--input_tif, or run `make repro`"
        )
    pairs = []
    for region in dict.fromkeys(entry.split("/")[0] for entry in open_split().test):
        files = {scene.year: scene.rgb for scene in find_scenes(scenes, [region], check=False)}
        pairs += [(files[last], [files[following]]) for last, following in year_pairs(files)[-1:]]
    return pairs
