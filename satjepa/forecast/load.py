"""A trained model in one call, and its forecasts as arrays.

import satjepa

model = satjepa.load()
forecast = model.forecast("s2_2020.tif", "s2_2021.tif", "s2_2022.tif", samples=8, seed=0)
forecast.mean, forecast.spread, forecast.members  # (3,H,W), (3,H,W), (8,3,H,W)
forecast.save("s2_2023.tif")
forecast.picture("s2_2023.png")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.assemble import local
from satjepa.captions.table import RULES
from satjepa.contracts import CAPTION_KINDS
from satjepa.data.georeference import as_stored
from satjepa.data.stack import ForecastError
from satjepa.forecast.led import Telling, Told
from satjepa.forecast.members import Members
from satjepa.forecast.picture import draw, middle, part_of, psnr, save_picture, truth_of, view_of
from satjepa.forecast.raster import Made, forecast_images
from satjepa.forecast.request import Request, check_files, check_output
from satjepa.paths import SHIPPED_MODEL, root, run_folder

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from rasterio import Affine
    from rasterio.crs import CRS

    from satjepa.captions.embeddings import Embed
    from satjepa.models.joint import JointModel
    from satjepa.models.led import Led

CURE = "run `make repro`, or pass --checkpoint FOLDER"


def no_log(line: str) -> None:
    """A log that no one reads."""


class Forecast:
    """The forecast of one place, on the grid of the images it was made from.

    mean, spread: (3,H,W) float32, mean and standard deviation over the members; 0 is black and 1 is
    white. members: (samples,3,H,W) float32. last: (3,H,W), the image of year t on the same scale.
    sentences: what led each member, by the upper left corner (x, y) of a tile in the scene, north
    up; {} unless the model writes captions (`load`, captions="written").
    All are NaN where year t has no valid pixel. Rows and columns are those of the files, as `crs`
    and `transform` say. year: of the forecast, None where those of the images are not known.

    Where tiles overlap, `members` are the weighted means of theirs, and `spread` is that of their
    mixture.
    """

    def __init__(self, made: Made, members: Members) -> None:
        self._made = made
        self._view = view_of(made, members)
        turn = made.stack.turn
        self.mean: np.ndarray = as_stored(self._view.mean, turn)
        self.spread: np.ndarray = as_stored(self._view.spread, turn)
        self.members: np.ndarray = as_stored(self._view.members, turn)
        self.last: np.ndarray = as_stored(self._view.last, turn)
        self.sentences: Told = made.sentences
        self.year: int | None = None if self._view.year is None else self._view.year + 1

    def __repr__(self) -> str:
        height, width = self.mean.shape[1:]
        images = ", ".join(image.name for image in self._made.request.images)
        return (
            f"Forecast of {self.year or 'the next year'}: {width}x{height} px, "
            f"{len(self.members)} members, from {images}"
        )

    @property
    def crs(self) -> CRS | None:
        """Coordinate reference system of the images."""
        return self._made.request.place.crs

    @property
    def transform(self) -> Affine:
        """From (column, row) to coordinates in `crs`."""
        return self._made.request.place.transform

    def save(self, path: str | Path) -> Path:
        """Write the GeoTIFF that `satjepa forecast` writes: mean and spread of red, green and blue,
        in the units of the images. ForecastError where it cannot be written.
        """
        check_output(path, self._made.request.images)
        return self._made.write(path)

    def picture(
        self, path: str | Path | None = None, truth: str | Path | None = None
    ) -> Path | Figure:
        """Draw year t, mean, spread and three members; of a large raster its middle. With `truth`,
        the image of the forecast's year, also that and the error of the mean. Writes a PNG to
        `path`; without it, returns the figure.
        """
        view = self._view
        if truth is not None:
            view = replace(view, truth=truth_of(self._made, Path(truth)))
        view = part_of(view, middle(view.shape))
        if path is None:
            return draw(view)
        check_output(path, self._made.request.images)
        return save_picture(view, path)

    def psnr(self, truth: str | Path) -> tuple[float, float]:
        """Peak signal-to-noise ratio in dB of the mean, and of the last image taken as the forecast
        (persistence), against the image of the forecast's year; over pixels valid in both years.
        """
        return psnr(self._made, truth_of(self._made, Path(truth)))


@dataclass(frozen=True)
class Model:
    """A trained model, ready to forecast; `load` makes one.

    folder: of its checkpoint. name: the first twelve digits of the sha256 of its weights. joint:
    the model itself; its settings are `joint.params`. embed: captions to embeddings, None for a
    model that reads none. tokens: texts to the numbers of their tokens, uncut. led: the same model,
    its members led by captions it writes, where these are asked for.
    """

    folder: Path
    name: str
    joint: JointModel = field(repr=False)
    embed: Embed | None = field(repr=False)
    tokens: Callable[[list[str]], list[int]] | None = field(default=None, repr=False)
    led: Led | None = field(default=None, repr=False)

    def forecast(
        self,
        *images: str | Path,
        samples: int | None = None,
        seed: int = 0,
        years: Sequence[int] | None = None,
        white: float | None = None,
        captions: dict[str, str] | None = None,
        log: Callable[[str], None] = no_log,
    ) -> Forecast:
        """Forecast the year after the last of the images: RGB GeoTIFFs of one grid, one a year,
        oldest first.

        samples: members of the ensemble; default: `sample.samples` of params.yaml. seed: the same
        one gives the same forecast. years: of the last image or of each; default: from the file
        names. white: value in [0, 1] shown as white; default: 1 for uint8, else as in training.
        captions: what is to come, in words: "semantic" (what the forecast's year shows, quarter by
        quarter), "informative", "geometric", each or all, in place of the model's own; they lead
        every tile of the scene.
        log: is told what is done, a line at a time.
        All members stay in memory, 12 bytes a pixel and member.

        Raises ForecastError and SceneError for images that cannot be forecast as asked.
        """
        if not images:
            raise ForecastError("no image: give at least that of the last year")
        request = check_files(images, None, years)
        samples = samples or self.joint.params.sample.samples
        height, width = request.shape
        members = Members((0, 0, width, height), samples)
        made = self.make(request, samples, seed, white, log, members, captions)
        return Forecast(made, members)

    def make(
        self,
        request: Request,
        samples: int,
        seed: int = 0,
        white: float | None = None,
        log: Callable[[str], None] = no_log,
        members: Members | None = None,
        captions: dict[str, str] | None = None,
    ) -> Made:
        """The same of images that were looked at; `members` keeps what it is made to keep."""
        self.check_captions(captions or {})
        captioner = self.joint.params.captions.captioner
        if self.embed is not None and captioner != RULES:
            log(
                f"captions of the last year are written by rule; in training {captioner} wrote them"
            )
        data = self.joint.params.data
        telling = None if self.led is None else Telling(self.led)
        made = forecast_images(
            request, telling or self.joint,
            patch=data.patch, history=data.history, embed=self.embed, samples=samples, seed=seed,
            white=white, trained_white=data.white, tags=self.tags, log=log, keep=members,
            given=captions,
        )  # fmt: skip
        return made if telling is None else replace(made, sentences=telling.told)

    def check_captions(self, captions: dict[str, str]) -> None:
        """ForecastError for captions that this model cannot be led by: of an unknown kind, too
        long, or any where it reads none.
        """
        if not captions:
            return
        if odd := sorted(set(captions) - set(CAPTION_KINDS)):
            raise ForecastError(f"captions of kind {odd[0]!r}: there are {list(CAPTION_KINDS)}")
        if self.led is not None and "semantic" in captions:
            raise ForecastError(
                "a semantic caption is given, and each member is to be led by one that is written: "
                "ask for one of the two"
            )
        lengths = getattr(self.joint, "lengths", None)
        if self.tokens is None or lengths is None:
            raise ForecastError(
                f"the model in {self.folder} cannot be led by captions: it was trained without "
                "them, or as the published code does"
            )
        for kind, text in captions.items():
            if not text.strip():
                raise ForecastError(f"the {kind} caption is empty: say something, or leave it out")
            (count,) = self.tokens([text])
            if count > (most := lengths[CAPTION_KINDS.index(kind)]):
                raise ForecastError(
                    f"the {kind} caption has {count} tokens, and the model reads {most}: shorten it"
                )

    @property
    def tags(self) -> dict[str, str]:
        """What the GeoTIFF says of the model: its name and the settings of the sampler."""
        written = {} if self.led is None else {"CAPTIONS": "written"}
        return written | {
            "MODEL": self.name,
            "STEPS": str(self.joint.steps),
            "GUIDANCE": f"{self.joint.guidance:g}",
            "STRENGTH": f"{self.joint.strength:g}",
        }

    @property
    def sampler(self) -> str:
        """The same in words, and whether a pixel of the last image reaches the sampler."""
        led = "" if self.led is None else "; each member led by a caption of its own"
        return self.joint.sampler + led


def default_checkpoint() -> Path:
    """The folder of the model that the pipeline has trained, where it has; else of the shipped
    one. CheckpointError where neither is there.
    """
    from satjepa.config import load_params
    from satjepa.training import checkpoint

    params = load_params()
    trained = run_folder(params.main_arm, params.seeds[0]) / "model"
    shipped = root() / SHIPPED_MODEL
    for folder in (trained, shipped):
        if checkpoint.exists(folder):
            return folder
    raise checkpoint.CheckpointError(
        f"no checkpoint at {trained}: {CURE}; nor is the "
        f"shipped one at {shipped}: git checkout {SHIPPED_MODEL} restores it"
    )


def load(
    checkpoint: str | Path | None = None, device: str | torch.device | None = None, **sample: Any
) -> Model:
    """A trained model, ready to forecast.

    checkpoint: folder of a checkpoint; None is what the pipeline has trained here (runs/), or
    else the model that is shipped (assets/demo_model); `folder` of the result says which. device:
    default the GPU if there is one. sample: other values for the `sample` section of its settings,
    where not None: steps, guidance, strength, captions ("written": each member is led by a caption
    of its own, which the writer beside the checkpoint draws).

    Raises CheckpointError where there is no checkpoint, another backbone than it was trained on, or
    no writer that is asked for, ConfigError for a value that does not fit.
    """
    from satjepa.assemble import embedder, from_checkpoint, load_led, load_text_encoders, the_device
    from satjepa.training import checkpoint as checkpoints

    found = checkpoints.load(checkpoint or default_checkpoint())
    _quiet(found.header["config"]["backbone"]["path"])
    joint = from_checkpoint(found, device or the_device(), sample=sample)
    encoders = joint.params.model.use_captions and load_text_encoders(joint.params, joint.device)
    embed = embedder(joint, encoders) if encoders else None
    tokens = encoders.lengths if encoders else None
    written = joint.params.sample.captions == "written"
    led = load_led(joint, found.folder, encoders or None) if written else None
    name = found.state["sha256"][checkpoints.MODEL][:12]
    return Model(found.folder, name, joint, embed, tokens, led)


def _quiet(backbone: str) -> None:
    """No progress bars for weights that lie in a folder: they are read in a blink."""
    if Path(local(backbone)).is_dir():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
