"""satjepa.evaluation.evaluate: one loop for all rows, honest pooling, refusal of what was trained
on.
"""

import json
import math

import pytest
import torch

from satjepa.baselines.persistence import MeanColour, OracleMean, OracleSample, Persistence
from satjepa.data.splits import LeakError, Split
from satjepa.evaluation.evaluate import Scores, evaluate_all
from satjepa.metrics import pixels as metrics
from satjepa.metrics.perceptual import Perceptual


def evaluate_ensemble(forecaster, batches, samples: int, name: str, **settings) -> list[Scores]:
    """The two rows of one ensemble: mean of `samples`, one sample."""
    return evaluate_all({name: forecaster}, batches, samples={name: samples}, **settings)


def evaluate(forecaster, batches, samples: int = 1, name: str = "ours", **settings) -> Scores:
    """The one row of a forecaster, of the ensemble mean where `samples` > 1."""
    return evaluate_all({name: forecaster}, batches, samples={name: samples}, **settings)[0]


def make_batch(patches: int, seed: int = 0, side: int = 24) -> dict:
    """A batch in the project's format: half of each patch changes (process 1), a quarter of it
    strongly (process 5).
    """
    generator = torch.Generator().manual_seed(seed)
    rgb_t = 0.3 + 0.2 * torch.rand(patches, 3, side, side, generator=generator)
    process = torch.zeros(patches, 1, side, side, dtype=torch.uint8)
    process[..., : side // 2, :] = 1
    process[..., : side // 2, : side // 2] = 5
    step = torch.tensor([0.0, 0.15, 0, 0, 0, 0.4])[process.long()]
    expected = rgb_t + step
    draw = [expected + 0.02 * torch.randn(rgb_t.shape, generator=generator) for _ in range(2)]
    valid = torch.ones(patches, 1, side, side, dtype=torch.bool)
    meta = [
        {"region": f"R{seed}", "year": 2020, "x": 64 * i, "y": 0, "preset": "strong"}
        for i in range(patches)
    ]
    return {
        **{
            "rgb_t": rgb_t,
            "rgb_tp1": draw[0],
            "oracle_mean": expected,
            "oracle_sample": draw[1],
            "process": process,
        },
        **{"valid_t": valid, "valid_tp1": valid.clone(), "meta": meta},
    }


class Ensemble:
    """The oracle with noise: reliable, and the same for a place whatever its batch. Counts its
    calls.
    """

    def __init__(self, trained_on=None) -> None:
        self.calls = 0
        self.trained_on = trained_on

    def forecast(self, batch: dict, samples: int = 1, seed: int = 0) -> torch.Tensor:
        self.calls += 1
        members = []
        for image, meta in zip(batch["oracle_mean"], batch["meta"], strict=True):
            generator = torch.Generator().manual_seed(
                1000 * int(meta["region"][1:]) + meta["x"] + seed
            )
            members.append(image + 0.02 * torch.randn(samples, *image.shape, generator=generator))
        return torch.stack(members, 1)


@pytest.fixture(scope="module")
def random() -> Perceptual:
    return Perceptual(None, "random", None, "no weights in this test")


@pytest.fixture(scope="module")
def batches() -> list[dict]:
    return [make_batch(3, 1), make_batch(2, 2)]


def test_persistence_has_no_skill_and_the_oracle_has(batches) -> None:
    forecasters = {
        "Default": Persistence(),
        "grey": MeanColour(),
        "oracle": OracleMean(),
        "dice": OracleSample(),
    }
    rows = {score.row["model"]: score.row for score in evaluate_all(forecasters, batches)}
    assert list(rows) == list(forecasters)
    assert rows["Default"]["skill"] == 0.0 and rows["Default"]["skill_changed"] == 0.0
    assert rows["oracle"]["skill"] > 0.95 and rows["grey"]["skill"] < rows["oracle"]["skill"]
    assert rows["dice"]["mse"] == pytest.approx(2 * rows["oracle"]["mse"], rel=0.1), (
        "truth and sample, both noisy"
    )
    for row in rows.values():
        assert (row["n"], row["samples"], row["preset"]) == (5, 1, "strong")
        assert row["crps"] == pytest.approx(row["l1"]) and row["spread_skill"] is None
        assert row["seconds_per_patch"] > 0 and "lpips" not in row


def test_numbers_are_those_of_metrics(batches) -> None:
    scores = evaluate(OracleMean(), batches, name="oracle")
    target, image = (torch.cat([b[key] for b in batches]) for key in ("rgb_tp1", "oracle_mean"))
    for name in ("l1", "mse", "psnr", "ssim", "gssim"):
        per_patch = getattr(metrics, name)(image, target)
        assert scores.row[name] == pytest.approx(float(per_patch.mean()), rel=1e-9)
        assert scores.patches[name].tolist() == pytest.approx(per_patch.tolist(), rel=1e-9)
    assert scores.patches["x"].tolist() == [0, 64, 128, 0, 64]
    assert scores.patches["region"].tolist() == ["R1"] * 3 + ["R2"] * 2
    assert scores.row["model"] == "oracle"


def test_parts_of_the_pixels(batches) -> None:
    row = evaluate(Persistence(), batches).row
    assert row["share_crop"] == row["share_fire"] == 0.25 and row["share_town"] == 0.0
    assert row["share_changed"] == pytest.approx(0.5, abs=0.01), "both steps exceed 0.1"
    assert row["mse_fire"] == pytest.approx(0.16, abs=0.002) and row["mse_crop"] == pytest.approx(
        0.0229, abs=0.001
    )
    assert row["l1_fire"] == pytest.approx(0.4, abs=0.002)
    assert row["psnr_fire"] == pytest.approx(-10 * math.log10(row["mse_fire"]))
    assert (
        row["skill_fire"] == 0.0 and math.isnan(row["mse_town"]) and math.isnan(row["skill_town"])
    )
    assert evaluate(Persistence(), batches, threshold=0.3).row["share_changed"] == pytest.approx(
        0.25
    )
    oracle = evaluate(OracleMean(), batches).row
    assert oracle["skill_fire"] > oracle["skill_crop"] > 0.95
    without = [{key: value for key, value in b.items() if key != "process"} for b in batches]
    assert not any("crop" in key for key in evaluate(Persistence(), without).row)


def test_pooled_by_pixels_but_psnr_by_patches() -> None:
    batch = make_batch(2)
    batch["rgb_tp1"] = batch["rgb_t"].clone()
    batch["rgb_tp1"][0] += 0.1
    batch["rgb_tp1"][1] += 0.2
    batch["valid_tp1"][1, :, 6:] = False  # a quarter of patch 1 is left
    row = evaluate(Persistence(), [batch], threshold=0.05).row
    assert row["l1"] == pytest.approx((4 * 0.1 + 0.2) / 5, rel=1e-5)
    assert row["mse"] == pytest.approx((4 * 0.01 + 0.04) / 5, rel=1e-5)
    assert row["psnr"] == pytest.approx((20.0 - 10 * math.log10(0.04)) / 2, rel=1e-5)
    assert row["psnr_changed"] == pytest.approx(-10 * math.log10(row["mse_changed"]))


def test_nodata_changes_no_row(random) -> None:
    batch = make_batch(3)
    batch["valid_t"][0, :, :6, :6] = False
    batch["valid_tp1"][1, :, -5:] = False
    batch["valid_tp1"][2] = False
    spoilt = {**batch, "rgb_t": batch["rgb_t"].clone(), "rgb_tp1": batch["rgb_tp1"].clone()}
    spoilt["rgb_t"].masked_fill_(~batch["valid_t"], 0.9)
    spoilt["rgb_tp1"].masked_fill_(~batch["valid_tp1"], torch.nan)
    forecasters = {"e": Ensemble(), "p": Persistence()}
    without = {key: value[:2] for key, value in batch.items()}  # patch 2 has no pixel to score
    given = (batch, spoilt, without)
    rows = [evaluate_all(forecasters, [b], samples={"e": 3}, perceptual=random) for b in given]
    for before, after, third in zip(*rows, strict=True):
        first, *others = (
            {k: v for k, v in s.row.items() if k != "seconds_per_patch"}
            for s in (before, after, third)
        )
        assert first["n"] == 2 and all(
            first == pytest.approx(other, nan_ok=True) for other in others
        )
        assert before.ranks == after.ranks
        assert math.isfinite(first["lpips_rand"]) and math.isfinite(first["fd_vgg_rand"])


def test_one_forecast_serves_both_rows(batches, random) -> None:
    forecaster = Ensemble()
    mean, one = evaluate_ensemble(forecaster, batches, 8, "ours", perceptual=random, seed=3)
    assert forecaster.calls == len(batches)
    assert (mean.row["model"], one.row["model"]) == ("ours, mean of 8", "ours, one sample")
    assert (mean.row["samples"], one.row["samples"]) == (8, 1)
    assert one.row["mse"] == pytest.approx(2 * 0.02**2, rel=0.05), "truth and sample, both noisy"
    assert mean.row["mse"] == pytest.approx((1 + 1 / 8) * 0.02**2, rel=0.05)
    assert (
        mean.row["spread_skill"] == pytest.approx(1.0, abs=0.05) and one.row["spread_skill"] is None
    )
    assert (
        mean.row["crps"] == pytest.approx(0.02 / math.pi**0.5, rel=0.05)
        and one.row["crps"] == one.row["l1"]
    )
    assert len(mean.ranks) == 9 and sum(mean.ranks) == pytest.approx(5 * 3 * 24 * 24)
    assert evaluate(Ensemble(), batches, 8, "ours", seed=3).row["mse"] == mean.row["mse"], (
        "evaluate scores the mean"
    )
    assert evaluate(Ensemble(), batches, 8, "ours", seed=4).row["mse"] != mean.row["mse"]


def test_rows_do_not_depend_on_the_batching(batches, random) -> None:
    def run(size: int) -> dict:
        whole = {k: torch.cat([b[k] for b in batches]) for k in batches[0] if k != "meta"}
        meta = [m for b in batches for m in b["meta"]]
        parts = [slice(i, i + size) for i in range(0, 5, size)]
        cut = [{**{k: v[part] for k, v in whole.items()}, "meta": meta[part]} for part in parts]
        row = evaluate(Ensemble(), cut, 2, perceptual=random).row
        return {k: v for k, v in row.items() if isinstance(v, float) and k != "seconds_per_patch"}

    assert run(1) == pytest.approx(run(5), nan_ok=True, rel=1e-4)


def test_what_cannot_be_measured_is_none_and_says_why(batches, random) -> None:
    scores = evaluate(OracleMean(), batches, perceptual=random)
    assert scores.row["fid64"] is None and scores.row["fid2048"] is None
    assert scores.row["fd_vgg_rand"] > 0 and scores.row["lpips_rand"] > 0
    assert "lpips" not in scores.row and "fd_vgg" not in scores.row
    assert (
        scores.settings["fid_missing"] == "no weights in this test"
        and scores.settings["fid"] is None
    )
    assert scores.settings["change_threshold"] == 0.1 and scores.settings["data_range"] == 1.0
    assert json.loads(json.dumps(scores.settings))


def test_a_trained_sample_is_refused() -> None:
    forecaster = Ensemble(trained_on=Split("region", 0, train=("R2",), val=(), test=("R1",)))
    assert evaluate(forecaster, [make_batch(1, 1)]).row["n"] == 1
    with pytest.raises(LeakError, match="R2"):
        evaluate(forecaster, [make_batch(1, 1), make_batch(1, 2)])
    assert forecaster.calls == 2, "refused before it was forecast"


def test_a_bad_forecast_is_an_error(batches) -> None:
    class Bad(Persistence):
        def __init__(self, spoil) -> None:
            self.spoil = spoil

        def forecast(self, batch: dict, samples: int = 1, seed: int = 0) -> torch.Tensor:
            return self.spoil(super().forecast(batch, samples, seed))

    for spoil in (lambda x: x[0], lambda x: x * torch.nan):
        with pytest.raises(ValueError, match="ours: forecast of shape"):
            evaluate(Bad(spoil), batches, name="ours")
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(Persistence(), [])


def test_baselines_are_forecasters(batches) -> None:
    batch = batches[0]
    for forecaster in (Persistence(), MeanColour(), OracleMean()):
        forecast = forecaster.forecast(batch, 2)
        assert forecast.shape == (2, 3, 3, 24, 24) and forecast.dtype == torch.float32
        assert torch.equal(forecast[0], forecast[1]) and forecast.min() >= 0 and forecast.max() <= 1
    assert torch.equal(Persistence().forecast(batch)[0], batch["rgb_t"])
    with pytest.raises(ValueError, match="one oracle sample"):
        OracleSample().forecast(batch, 2)
    with pytest.raises(KeyError, match="truth=True"):
        OracleMean().forecast({"rgb_t": batch["rgb_t"]})


def test_mean_colour_is_that_of_the_valid_pixels() -> None:
    batch = make_batch(1)
    batch["rgb_t"][:, :, :12], batch["rgb_t"][:, :, 12:] = 0.25, torch.nan
    batch["valid_t"][:, :, 12:] = False
    assert torch.allclose(MeanColour().forecast(batch), torch.tensor(0.25))
