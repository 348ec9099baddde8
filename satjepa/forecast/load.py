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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satjepa.assemble import local
from satjepa.captions.table import RULES
from satjepa.contracts import CAPTION_KINDS, Forecaster
from satjepa.data.stack import ForecastError
from satjepa.forecast.arrays import Forecast
from satjepa.forecast.blend import NOTHING, Kept
from satjepa.forecast.dataset import forecast_dataset, is_labelled
from satjepa.forecast.raster import Settings, forecast_images
from satjepa.forecast.request import check_files
from satjepa.paths import SHIPPED_MODEL, root, run_folder

if TYPE_CHECKING:
    import torch
    import xarray as xr

    from satjepa.captions.embeddings import Embed
    from satjepa.models.joint import JointModel
    from satjepa.models.led import Led

CURE = "run `make repro`, or pass --checkpoint FOLDER"


def no_log(line: str) -> None:
    """A log that no one reads."""


@dataclass(frozen=True)
class Model:
    """A trained model, ready to forecast; `load` makes one.

    folder: of its checkpoint. name: the first twelve digits of the sha256 of its weights. joint:
    the model itself; its settings are `joint.params`. embed: captions to embeddings, None for a
    model that reads none. tokens: texts to the numbers of their tokens, uncut. led: the same model,
    its members led by captions that it writes, where these were asked for.
    """

    folder: Path
    name: str
    joint: JointModel = field(repr=False)
    embed: Embed | None = field(repr=False)
    tokens: Callable[[list[str]], list[int]] | None = field(default=None, repr=False)
    led: Led | None = field(default=None, repr=False)

    def forecast(
        self,
        *images: str | Path | xr.Dataset | xr.DataArray,
        samples: int | None = None,
        seed: int = 0,
        years: Sequence[int] | None = None,
        white: float | None = None,
        captions: dict[str, str] | None = None,
        log: Callable[[str], None] = no_log,
    ) -> Forecast | xr.Dataset:
        """Forecast the year after the last of the images: RGB GeoTIFFs of one grid, one a year,
        oldest first; or one xarray Dataset or DataArray of them, whose forecast is a Dataset
        (`satjepa.forecast.dataset`).

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
        if is_labelled(images):
            how = {"samples": samples, "seed": seed, "captions": captions, "log": log}
            return forecast_dataset(self, images[0], years=years, white=white, **how)
        request = check_files(images, None, years)
        _, width = request.shape
        samples = samples or self.joint.params.sample.samples
        settings = self.settings(samples, seed, white, captions, Kept(samples, 0, width))
        if remark := self.remark():
            log(remark)
        return Forecast(forecast_images(request, self.forecaster, settings, log))

    def settings(
        self,
        samples: int | None = None,
        seed: int = 0,
        white: float | None = None,
        captions: dict[str, str] | None = None,
        kept: Kept = NOTHING,
        years: int = 1,
    ) -> Settings:
        """How this model forecasts, with what `forecast` and `Settings` say of these. Raises
        ForecastError for captions that it cannot be led by.
        """
        self.check_captions(captions or {})
        data = self.joint.params.data
        return Settings(
            patch=data.patch, history=data.history, embed=self.embed,
            samples=samples or self.joint.params.sample.samples, seed=seed, years=years,
            white=white, trained_white=data.white, tags=self.tags, kept=kept, given=captions,
        )  # fmt: skip

    def remark(self) -> str | None:
        """What is to be said of its captions, if anything."""
        captioner = self.joint.params.captions.captioner
        if self.embed is None or captioner == RULES:
            return None
        return f"captions of the last year are written by rule; in training {captioner} wrote them"

    def check_captions(self, captions: dict[str, str]) -> None:
        """ForecastError for captions that this model cannot be led by: of an unknown kind, too
        long, or any where it reads none.
        """
        if not captions:
            return
        if odd := sorted(set(captions) - set(CAPTION_KINDS)):
            raise ForecastError(f"captions of kind {odd[0]!r}: there are {list(CAPTION_KINDS)}")
        lengths = getattr(self.joint, "lengths", None)
        if self.tokens is None or lengths is None:
            raise ForecastError(
                f"the model in {self.folder} cannot be led by captions: it was trained without "
                "them, or as the published code does"
            )
        if self.led is not None and "semantic" in captions:
            raise ForecastError(
                "a semantic caption is given, and each member is to be led by one that is written: "
                "ask for one of the two"
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
    def forecaster(self) -> Forecaster:
        """What forecasts: the model, or the model led by what it writes."""
        return self.led or self.joint

    @property
    def tags(self) -> dict[str, str]:
        """What the GeoTIFF says of the model: its name and the settings of the sampler, and of what
        writes captions, where they lead the members.
        """
        from satjepa.training.provenance import hash_module

        written = {}
        if led := self.led:
            written = {"CAPTIONS": "written", "WRITER": hash_module(led.writer)[:12]}
            written |= {"TEMPERATURE": f"{led.temperature:g}", "TOP_P": f"{led.top_p:g}"}
        return written | {
            "MODEL": self.name,
            "STEPS": str(self.joint.steps),
            "GUIDANCE": f"{self.joint.guidance:g}",
            "STRENGTH": f"{self.joint.strength:g}",
        }

    @property
    def sampler(self) -> str:
        """The same in words, and whether a pixel of the last image reaches the sampler."""
        led = "" if self.led is None else "; each member led by a sentence of its own"
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
    checkpoint: str | Path | None = None, device: str | torch.device | None = None,
    written: bool = False, **sample: Any,
) -> Model:  # fmt: skip
    """A trained model, ready to forecast.

    checkpoint: folder of a checkpoint; None is what the pipeline has trained here (runs/), or
    else the model that is shipped (assets/demo_model); `folder` of the result says which. device:
    default the GPU if there is one. written: each member of a forecast is led by a semantic caption
    of its own, drawn by the writer beside the checkpoint, in each tile of a scene by another; the
    `sentences` of the forecast tell which. sample: other values for the `sample` section of its
    settings, where not None: steps, guidance, strength.

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
    led = load_led(joint, found.folder, encoders or None) if written else None
    name = found.state["sha256"][checkpoints.MODEL][:12]
    return Model(found.folder, name, joint, embed, tokens, led)


def _quiet(backbone: str) -> None:
    """No progress bars for weights that lie in a folder: they are read in a blink."""
    if Path(local(backbone)).is_dir():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
