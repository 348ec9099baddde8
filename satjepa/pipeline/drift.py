"""How forecasts drift from the land, year by year, in the demo world, where all is known.

`futures` plays a region of it on from one year: as it went (the truth), and as it might have gone,
many times over (the oracle, which knows the state of every field and stand). `Windows` are patches
of it as a forecaster is shown them; `systems` forecasts them and `scores` says how far off each is,
a row a year.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from satjepa.baselines.clips import clip
from satjepa.contracts import Batch, Forecaster
from satjepa.data.pairs import spread_evenly
from satjepa.data.parallel import in_threads
from satjepa.demo.render import Camera
from satjepa.demo.terrain import stream
from satjepa.demo.world import Climate, Land
from satjepa.evaluation.land import land_and_place
from satjepa.forecast.rollout import Describe, member_seed, rollout, year_later
from satjepa.metrics import pixels as metrics

if TYPE_CHECKING:
    import pandas as pd

OURS = "rollout"
MEAN_BACK = "mean fed back"
ORACLE = "oracle"
PERSISTENCE = "persistence"
LINE = "linear trend"


@dataclass(frozen=True)
class Plan:
    """What is asked: `years` ahead of `year`, with `history` years before it, `members` in every
    ensemble, the oracle's mean over `draws` lands; windows of `patch` pixels.
    """

    year: int
    years: int
    history: int
    patch: int
    members: int = 8
    draws: int = 256


class Futures(NamedTuple):
    """A region seen from one year, uint8 as a satellite would bring it home. Y years ahead."""

    seen: np.ndarray  # (1+T,3,H,W): that year and those before it, newest first
    truth: np.ndarray  # (Y,3,H,W)
    oracle_mean: np.ndarray  # (Y,3,H,W): the expected image
    oracle: np.ndarray  # (Y,S,3,H,W): S lands played on, each with weather of its own


class Windows(NamedTuple):
    """B patches of some regions: what a forecaster is shown, and [0, 1] images of Y years ahead."""

    batch: Batch
    truth: Tensor  # (Y,B,3,H,W)
    oracle_mean: Tensor  # (Y,B,3,H,W)
    oracle: Tensor  # (Y,S,B,3,H,W)


def futures(recipe: Mapping[str, Any], preset: str, region: str, plan: Plan) -> Futures:
    """One region of the demo world seen from `plan.year`.

    recipe: the parsed world.yaml. The truth is that of `satjepa.demo.render.simulate`, to the bit.
    ValueError where the recipe has not all of the years.
    """
    wanted = range(plan.year - plan.history, plan.year + plan.years + 1)
    if not set(wanted) <= set(recipe["years"]):
        had = recipe["years"]
        raise ValueError(f"the demo world has the years {had}, not all of {[*wanted]}")
    climate = Climate.of(recipe["presets"][preset])
    land = Land((recipe["seed"], preset, region), recipe["size"], climate)
    camera = Camera(land)
    lands = {}
    for year in range(recipe["years"][0], wanted[-1] + 1):
        lands[year] = land
        land = land.advance(stream(*land.key, "advance", year))
    images = {year: camera.shot(lands[year].cover(), year) for year in wanted}
    known = lands[plan.year]
    ahead = [plan.year + k for k in range(1, plan.years + 1)]
    return Futures(
        np.stack([images[plan.year - lag] for lag in range(plan.history + 1)]),
        np.stack([images[year] for year in ahead]),
        _expected(known, camera, plan),
        _played(known, camera, plan),
    )


class _Ahead(Land):
    """A land of which the odds of its objects in some later year are known."""

    def __init__(self, land: Land, odds: dict[str, np.ndarray]) -> None:
        vars(self).update(vars(land))
        self.odds = odds

    def transition(self) -> dict[str, np.ndarray]:
        return self.odds


def _mean_odds(lands: Sequence[Land]) -> dict[str, np.ndarray]:
    """The mean over some lands of `Land.transition`."""
    odds = [land.transition() for land in lands]
    mean = {}
    for name in odds[0]:
        mean[name] = np.mean([each[name] for each in odds], 0)
    return mean


def _expected(land: Land, camera: Camera, plan: Plan) -> np.ndarray:
    """Expected images (Y,3,H,W). The odds of each object are exact for the first year; later, the
    mean of those of `plan.draws` lands a year before. What makes up a pixel (its field, stand,
    block, water line) moves by itself, so that the odds of the cover follow exactly.
    """
    images = [camera.expected(land.expected_cover())]
    lands = [land] * plan.draws
    for ahead in range(1, plan.years):
        key = (*land.key, "expected", plan.year, ahead)
        lands = [one.advance(stream(*key, draw)) for draw, one in enumerate(lands)]
        odds = _mean_odds(lands)
        images.append(camera.expected(_Ahead(land, odds).expected_cover()))
    return np.stack(images)


def _played(land: Land, camera: Camera, plan: Plan) -> np.ndarray:
    """Images (Y,S,3,H,W) of `plan.members` lands played on, each in its own weather."""
    stories = []
    for member in range(plan.members):
        later = land
        story = []
        for ahead in range(plan.years):
            key = ("played on", plan.year, member, ahead)
            later = later.advance(stream(*land.key, *key))
            story.append(camera.shot(later.cover(), *key))
        stories.append(story)
    return np.stack(stories, 1)


def windows(
    recipe: Mapping[str, Any], preset: str, regions: Sequence[str], plan: Plan, count: int
) -> Windows:
    """`count` patches spread evenly over the windows of some regions that do not overlap."""
    corners = range(0, recipe["size"] - plan.patch + 1, plan.patch)
    spots = [(region, y, x) for region in regions for y in corners for x in corners]
    spots = [spots[i] for i in spread_evenly(len(spots), count)]
    names = sorted({region for region, _, _ in spots})
    played = in_threads(lambda name: futures(recipe, preset, name, plan), names)
    shown = dict(zip(names, played, strict=True))
    parts = [_cut(shown[region], y, x, plan.patch) for region, y, x in spots]
    seen, truth, mean, oracle = (
        torch.from_numpy(np.stack(images)).float() / 255 for images in zip(*parts, strict=True)
    )
    place = {"preset": preset, "year": plan.year, "aug": 0}
    batch: Batch = {
        "rgb_t": seen[:, 0],
        "valid_t": torch.ones(len(seen), 1, plan.patch, plan.patch, dtype=torch.bool),
        "history": seen[:, 1:],
        "history_valid": torch.ones(len(seen), plan.history, dtype=torch.bool),
        "meta": [place | {"region": region, "y": y, "x": x} for region, y, x in spots],
    }
    return Windows(
        batch, truth.transpose(0, 1), mean.transpose(0, 1), oracle.movedim(0, 2).contiguous()
    )


def _cut(region: Futures, y: int, x: int, side: int) -> Futures:
    """The window of a region whose upper left pixel is in row `y` and column `x`."""
    return Futures(*(images[..., y : y + side, x : x + side] for images in region))


def systems(
    forecaster: Forecaster, known: Windows, plan: Plan, seed: int, captions: Describe | None
) -> dict[str, Tensor]:
    """Forecasts (Y,S,B,3,H,W) of each system, S = 1 for those that give one answer."""
    batch = known.batch
    if captions is not None:
        batch = batch | {"text_t": captions(batch["rgb_t"], batch["valid_t"])}
    ours = rollout(forecaster, batch, plan.members, seed, plan.years, captions)
    lines = [line(batch, ahead) for ahead in range(1, plan.years + 1)]
    return {
        OURS: ours,
        MEAN_BACK: mean_fed_back(forecaster, batch, ours[0], seed, plan.years, captions),
        PERSISTENCE: batch["rgb_t"].expand(plan.years, 1, *batch["rgb_t"].shape),
        LINE: torch.stack(lines)[:, None],
        f"{ORACLE}, mean of {plan.draws}": known.oracle_mean[:, None],
        ORACLE: known.oracle,
    }


def mean_fed_back(
    forecaster: Forecaster, batch: Batch, first: Tensor, seed: int, years: int,
    captions: Describe | None,
) -> Tensor:  # fmt: skip
    """The other way to go on from the forecast of the first year, (S,B,3,H,W): each year from the
    mean of the year before, (Y,S,B,3,H,W).
    """
    members = [first]
    for ahead in range(1, years):
        batch = year_later(batch, members[-1].mean(0), captions)
        own = member_seed(seed, 0, ahead)
        members.append(forecaster.forecast(batch, len(first), own))
    return torch.stack(members)


def line(batch: Batch, ahead: int) -> Tensor:
    """The line of least squares through the years known of each pixel and band, read `ahead` years
    after t: (B,3,H,W), clamped. For one year ahead it is `satjepa.baselines.trend.LinearTrend`.
    """
    frames, known = clip(batch, batch["history"].shape[1])
    weight = known.to(frames.dtype)  # (B,T,1,H,W)
    years = torch.arange(1 - frames.shape[1], 1.0)[:, None, None, None]  # t at 0
    count = weight.sum(1).clamp_min(1)
    middle = (weight * years).sum(1) / count
    away = weight * (years - middle[:, None])
    slope = (away * frames).sum(1) / away.square().sum(1).clamp_min(1e-9)
    return ((weight * frames).sum(1) / count + slope * (ahead - middle)).clamp(0, 1)


def scores(forecasts: Mapping[str, Tensor], truth: Tensor) -> pd.DataFrame:
    """One row a system and year ahead: `psnr` of the mean of its members and `psnr_one` of a single
    one, dB, means over patches; `crps`; `spread_error`, spread over the error of the mean, 1 is
    right; `sharp`, the mean gradient of a member over that of the truth; `place`, the share of the
    pixels where a member has the true cover.

    forecasts: (Y,S,B,3,H,W) of each system; truth: (Y,B,3,H,W).
    """
    import pandas as pd

    rows = []
    for name, years in forecasts.items():
        for ahead, (members, target) in enumerate(zip(years, truth, strict=True), 1):
            rows.append({"model": name, "ahead": ahead} | _row(members, target))
    return pd.DataFrame(rows)


def _row(members: Tensor, target: Tensor) -> dict[str, float | None]:
    """The scores of members (S,B,3,H,W) in one year."""
    mean = members.mean(0)
    weights = torch.ones(len(target))
    row: dict[str, float | None] = {
        "psnr": float(metrics.psnr(mean, target).mean()),
        "psnr_one": float(metrics.psnr(members[0], target).mean()),
        "crps": float(metrics.crps(members, target).mean()),
        "spread_error": None,
        "sharp": float(_gradient(members[0]) / _gradient(target)),
        "place": float(land_and_place({"one": members[0]}, target).loc["one", "place"]),
    }
    if len(members) > 1:
        spread = metrics.spread(members)
        row["spread_error"] = metrics.spread_skill(spread, metrics.mse(mean, target), weights)
    return row


def liveliest(known: Windows) -> int:
    """The number of the patch of which the last year differs most from year t."""
    change = (known.truth[-1] - known.batch["rgb_t"]).abs().mean((1, 2, 3))  # (B,)
    return int(change.argmax())


def _gradient(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of images (B,3,H,W)."""
    across = images.diff(dim=-1).abs().mean()
    return (across + images.diff(dim=-2).abs().mean()) / 2
