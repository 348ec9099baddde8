"""One loop scores every row of every table: the same patches, the same pixels, the same functions
for all forecasters.

    rows = evaluate_all({"Default": Persistence(), "satjepa": model}, batches, samples={"satjepa":
    8}, ...)

How a row comes from its patches (also in `Scores.settings`, which a table prints): l1, mse, skill,
crps, spread_skill pool the errors of all valid pixels of the set before any ratio or root; psnr,
ssim, gssim, lpips are patch means; psnr of a part of the pixels (`psnr_changed`, `psnr_crop`, ...)
is that of the pooled MSE, as a patch with three such pixels must not weigh as much as one with
three thousand. Only pixels valid in both years count, so that a forecast and persistence are scored
on the same ones; a patch without any is not scored and not counted in n.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from satjepa.contracts import Forecaster, PatchKey
from satjepa.data.share import Share
from satjepa.evaluation.tally import Tally, joined
from satjepa.metrics import pixels as metrics
from satjepa.metrics.perceptual import Features, Perceptual, frechet_distance

PROCESSES = {1: "crop", 2: "forest", 3: "town", 4: "water", 5: "fire"}  # codes of batch["process"]
PATCH_MEANS = ("psnr", "ssim", "gssim")
FID_COLUMNS = ("fid64", "fid2048")


@dataclass(frozen=True)
class Scores:
    """One row of a table and what it was made of."""

    row: dict[str, str | int | float | None]  # None: could not be measured here
    # one line per patch: where it is, its scores, the pixels they are means of
    patches: pd.DataFrame
    # what the numbers depend on; the same for all rows of one evaluation
    settings: dict[str, object]
    ranks: list[float]  # rank histogram of the ensemble, (samples + 1) counts of pixels and bands


@dataclass(frozen=True)
class _Truth:
    """What forecasts of one batch are compared with."""

    target: Tensor  # (B, 3, H, W)
    # suffix of the metric -> the pixels it is about (B, 1, H, W) bool; "" is all valid ones
    parts: dict[str, Tensor]
    persistence: Tensor  # squared error of persistence at each pixel (B, 1, H, W)
    features: Features | None


def _truth(batch: dict, perceptual: Perceptual | None, threshold: float) -> _Truth:
    valid = batch["valid_t"] & batch["valid_tp1"]
    parts = {
        "": valid,
        "_changed": metrics.changed(batch["rgb_t"], batch["rgb_tp1"], valid, threshold),
    }
    if "process" in batch:
        parts |= {
            f"_{name}": (batch["process"] == code) & valid for code, name in PROCESSES.items()
        }
    features = None if perceptual is None else perceptual.features(batch["rgb_tp1"], valid)
    persistence = metrics.errors(batch["rgb_t"], batch["rgb_tp1"], valid)[1]
    return _Truth(batch["rgb_tp1"], parts, persistence, features)


def _score(members: Tensor, image: Tensor, truth: _Truth) -> dict[str, Tensor]:
    """Per-patch scores (B,) of `image`, the one answer of a row, and of the `members` (S, B, 3, H,
    W) behind it.
    """
    target = truth.target
    valid = truth.parts[""]
    scores = {name: getattr(metrics, name)(image, target, valid) for name in PATCH_MEANS}
    scores["crps"] = metrics.crps(members, target, valid)
    if len(members) > 1:
        scores["spread"] = metrics.spread(members, valid)
    absolute, squared = metrics.errors(image, target, valid)
    for suffix, part in truth.parts.items():
        scores[f"pixels{suffix}"] = part.flatten(1).sum(1)
        scores[f"l1{suffix}"] = metrics.masked_mean(absolute, part)
        scores[f"mse{suffix}"] = metrics.masked_mean(squared, part)
        scores[f"mse_persistence{suffix}"] = metrics.masked_mean(truth.persistence, part)
    return scores


def _forecast(
    name: str, forecaster: Forecaster, batch: dict, samples: int, seed: int
) -> tuple[Tensor, float]:
    """Members (S, B, 3, H, W) and the seconds they took; refuses samples the forecaster was trained
    on.
    """
    trained_on = getattr(forecaster, "trained_on", None)
    if trained_on is not None:
        trained_on.assert_unseen(batch["meta"])
    start = time.perf_counter()
    members = forecaster.forecast(batch, samples, seed)
    seconds = time.perf_counter() - start
    expected = (samples, *batch["rgb_tp1"].shape)
    if tuple(members.shape) != expected or not bool(members.isfinite().all()):
        raise ValueError(
            f"{name}: forecast of shape {tuple(members.shape)}, wanted finite numbers of shape "
            f"{expected}"
        )
    return members, seconds


def _add(
    tally: Tally, members: Tensor, batch: dict, truth: _Truth, perceptual: Perceptual | None
) -> None:
    """Score one batch for one row: the mean of `members` (S, B, 3, H, W), and the members as an
    ensemble.
    """
    image = members.mean(0)
    valid = truth.parts[""]
    scores = _score(members, image, truth)
    if perceptual is not None:
        features = perceptual.features(image, valid)
        scored = scores["pixels"] > 0
        distance = perceptual.distance(features, truth.features)
        scores[perceptual.lpips_name] = torch.where(scored, distance, torch.nan)
        for name in perceptual.distances:
            tally.forecast.setdefault(name, []).append(features.pooled[name][scored])
            tally.truth.setdefault(name, []).append(truth.features.pooled[name][scored])
    places = pd.DataFrame(batch["meta"])[list(PatchKey._fields)]
    tally.patches.append(places.assign(**{name: value.numpy() for name, value in scores.items()}))
    tally.ranks.append(metrics.rank_histogram(members, truth.target, valid).sum(0))


def _row(
    name: str, tally: Tally, perceptual: Perceptual | None
) -> dict[str, str | int | float | None]:
    """Patches to one row; the module's docstring says how."""
    frame = pd.concat(tally.patches, ignore_index=True)
    value = {key: torch.tensor(frame[key].to_numpy()) for key in frame.select_dtypes("number")}
    scored = int((value["pixels"] > 0).sum())
    row = {
        "model": name,
        "preset": "+".join(sorted(set(frame["preset"]))),
        "n": scored,
        "samples": tally.samples,
    }
    row |= {key: metrics.pool(value[key], value["pixels"]) for key in ("l1", "mse")}
    row |= {key: float(value[key].nanmean()) for key in PATCH_MEANS}
    if perceptual is not None:
        row[perceptual.lpips_name] = float(value[perceptual.lpips_name].nanmean())
        row |= dict.fromkeys(FID_COLUMNS)  # None where its weights could not be had
        row |= {
            k: frechet_distance(torch.cat(tally.forecast[k]), torch.cat(tally.truth[k]))
            for k in tally.forecast
        }
    row["skill"] = metrics.skill(value["mse"], value["mse_persistence"], value["pixels"])
    row["crps"] = metrics.pool(value["crps"], value["pixels"])
    spread = value.get("spread")
    row["spread_skill"] = (
        None if spread is None else metrics.spread_skill(spread, value["mse"], value["pixels"])
    )
    for suffix in (key.removeprefix("pixels") for key in frame if key.startswith("pixels_")):
        row |= _part(suffix, value)
    row["seconds_per_patch"] = tally.seconds / len(frame)
    return row


def _part(suffix: str, value: dict[str, Tensor]) -> dict[str, float]:
    """The columns of a part of the pixels: those that changed, or those of one process."""
    pixels = value[f"pixels{suffix}"]
    mse = metrics.pool(value[f"mse{suffix}"], pixels)
    return {
        f"share{suffix}": float(pixels.sum() / value["pixels"].sum()),
        f"l1{suffix}": metrics.pool(value[f"l1{suffix}"], pixels),
        f"mse{suffix}": mse,
        f"psnr{suffix}": float(metrics.psnr_of(mse)),
        f"skill{suffix}": metrics.skill(
            value[f"mse{suffix}"], value[f"mse_persistence{suffix}"], pixels
        ),
    }


def evaluate_all(
    forecasters: dict[str, Forecaster],
    batches: Iterable[dict],
    *,
    samples: dict[str, int] | None = None,
    seed: int = 0,
    perceptual: Perceptual | None = None,
    threshold: float = 0.1,
    share: Share | None = None,
) -> list[Scores]:
    """Score forecasters by name on the same batches, in one pass over them.

    A forecaster with `samples[name]` = S > 1 gives two rows from one ensemble: "name, mean of S"
    scores the mean of the members, and CRPS, spread and ranks the members; "name, one sample"
    scores member 0 as a forecast of its own (whose CRPS is its L1). Without `perceptual` there are
    no LPIPS, FID and fd_vgg columns. `threshold`: a pixel has changed where |rgb(t+1) - rgb(t)|,
    averaged over bands, exceeds it. `share`: where each of several processes has its own of the
    batches (`satjepa.assemble.batches`), all of them get all rows.

    Batches need meta with preset, region, year, x, y. Raises LeakError (from the forecaster's
    `trained_on`) for a sample it was trained on, ValueError for a forecast of the wrong shape or
    with non-finite values, and when there is no batch.
    """
    tallies: dict[str, Tally] = {}
    for batch in batches:
        truth = _truth(batch, perceptual, threshold)
        for name, forecaster in forecasters.items():
            members, seconds = _forecast(
                name, forecaster, batch, (samples or {}).get(name, 1), seed
            )
            rows = {name: members}
            if len(members) > 1:
                rows = {
                    f"{name}, mean of {len(members)}": members,
                    f"{name}, one sample": members[:1],
                }
            for title, used in rows.items():
                tally = tallies.setdefault(title, Tally(len(used)))
                tally.seconds += seconds * len(used) / len(members)
                _add(tally, used, batch, truth, perceptual)
    tallies = joined(tallies, share or Share())
    if not tallies:
        raise ValueError(
            "nothing to evaluate: no forecaster, or no batch (is the split's part empty?)"
        )
    return [_scores(title, tally, perceptual, threshold, seed) for title, tally in tallies.items()]


def _scores(
    title: str, tally: Tally, perceptual: Perceptual | None, threshold: float, seed: int
) -> Scores:
    settings = {
        "data_range": metrics.DATA_RANGE,
        "psnr": (
            f"mean over patches, at most {metrics.PSNR_CAP:g} dB; of a part of the pixels: of "
            "the pooled MSE"
        ),
        "ssim": (
            f"Gaussian {metrics.SSIM_WINDOW}x{metrics.SSIM_WINDOW}, sigma "
            f"{metrics.SSIM_SIGMA}, zero padding"
        ),
        "gssim": (
            f"SSIM of Sobel magnitudes at scales {metrics.GSSIM_SCALES}, scaled to [0, 1] per image"
        ),
        "change_threshold": threshold,
        "skill": "1 - MSE / MSE of persistence, both pooled over the set",
        "crps": (
            "per pixel and band, fair estimator (pairs divided by S (S - 1)); one sample: its L1"
        ),
        "spread_skill": (
            "sqrt((S + 1) / S x member variance / MSE of the mean), pooled over the set"
        ),
        "valid": "pixels valid in both years",
        "seed": seed,
    }
    settings |= {} if perceptual is None else perceptual.settings
    patches = pd.concat(tally.patches, ignore_index=True)
    return Scores(_row(title, tally, perceptual), patches, settings, sum(tally.ranks).tolist())
