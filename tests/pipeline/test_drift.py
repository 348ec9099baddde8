"""Several years ahead in the demo world: truth and oracle are its own, the scores what they say."""

import numpy as np
import pytest
import torch
import yaml

from satjepa.baselines.trend import LinearTrend
from satjepa.models.flow import patch_noise
from satjepa.paths import root
from satjepa.pipeline import drift, drift_figures
from satjepa.pipeline.one_patch import rendered

PLAN = drift.Plan(2020, years=3, history=2, patch=32, members=3, draws=40)
# A world without chance: every crop is followed by the next, nothing is cut, built or dry.
CLOCK = {"permanent": 0.3, "rotation": 1.0, "cutting": 0.0, "drought": 0.0, "building": 0.0}
CLOCK |= {"filling": 1.0, "weather": 0.0}


@pytest.fixture(scope="module")
def recipe() -> dict:
    world = yaml.safe_load((root() / "assets/demo/world.yaml").read_text()) | {"size": 64}
    return world | {"presets": world["presets"] | {"clock": CLOCK}}


@pytest.fixture(scope="module")
def cube(recipe):
    return rendered(recipe, "Brannoch", last=2023)


@pytest.fixture(scope="module")
def strong(recipe) -> drift.Futures:
    return drift.futures(recipe, "strong", "Brannoch", PLAN)


def test_the_truth_is_the_demo_worlds(strong, cube):
    images = cube["rgb"].sel(year=[2020, 2019, 2018, 2021, 2022, 2023]).values
    assert np.array_equal(strong.seen, images[:3])
    assert np.array_equal(strong.truth, images[3:])
    assert np.array_equal(strong.oracle_mean[0], cube["oracle_mean"].sel(year=2021).values)


def test_a_world_without_chance_is_foreseen(recipe):
    """Every land of the oracle and its expectation are the truth, but for the noise of a camera."""
    sure = drift.futures(recipe, "clock", "Gorzow", PLAN)
    truth = sure.truth[:, None].astype(float)
    for images in (sure.oracle, sure.oracle_mean[:, None]):
        assert np.abs(images - truth).mean((1, 2, 3, 4)).max() < 1.5
    change = np.abs(np.diff(np.concatenate([sure.seen[:1], sure.truth]).astype(float), axis=0))
    assert change.mean((1, 2, 3)).min() > 5, "and it does change"


def test_the_oracle_expects_the_mean_of_what_it_plays(recipe):
    plan = drift.Plan(2020, years=3, history=0, patch=32, members=40, draws=40)
    calm = recipe["presets"]["strong"] | {"weather": 0.0}
    world = recipe | {"presets": {"strong": calm}}
    many = drift.futures(world, "strong", "Fyrisan", plan)
    mean = many.oracle.astype(float).mean(1)
    error = np.abs(mean - many.oracle_mean).mean((1, 2, 3))
    assert error.max() < 2.5
    before = np.abs(mean[1:] - many.oracle_mean[:-1]).mean((1, 2, 3))
    assert before.min() > 4, "no other year would do"


def test_lands_of_the_oracle_differ_from_each_other_and_the_truth(strong):
    """Each is played on by itself, with weather of its own, from the first year on."""
    lands = [*strong.oracle.swapaxes(0, 1).astype(float), strong.truth.astype(float)]
    for i, one in enumerate(lands):
        for other in lands[:i]:
            assert np.abs(one - other).mean((1, 2, 3)).min() > 1.5


def test_years_that_the_world_has_not_are_refused(recipe):
    with pytest.raises(ValueError, match=r"not all of \[2020, .* 2025\]"):
        drift.futures(recipe, "strong", "Brannoch", drift.Plan(2022, 3, 2, 32))


def test_windows_are_cut_where_they_say(recipe, cube):
    known = drift.windows(recipe, "strong", ["Brannoch", "Gorzow"], PLAN, 5)
    metas = known.batch["meta"]
    assert [m["region"] for m in metas] == ["Brannoch"] * 3 + ["Gorzow"] * 2
    assert len({(m["region"], m["y"], m["x"]) for m in metas}) == 5
    assert known.oracle.shape == (3, 3, 5, 3, 32, 32) and known.oracle_mean.shape[:2] == (3, 5)
    for i, meta in enumerate(metas[:3]):
        box = np.s_[..., meta["y"] : meta["y"] + 32, meta["x"] : meta["x"] + 32]
        images = torch.from_numpy(cube["rgb"].values[box]).float() / 255  # of 2017 .. 2023
        assert torch.equal(known.batch["rgb_t"][i], images[3])
        assert torch.equal(known.batch["history"][i], images[[2, 1]])
        assert torch.equal(known.truth[:, i], images[4:])
    assert known.batch["history_valid"].all() and known.batch["valid_t"].all()


def test_the_line_is_the_trends_and_goes_on():
    years = torch.rand(2, 3, 3, 8, 8)
    batch = {"rgb_t": years[:, 0], "history": years[:, 1:]}
    batch |= {"valid_t": torch.ones(2, 1, 8, 8).bool(), "history_valid": torch.ones(2, 2).bool()}
    batch["history_valid"][1, 1] = False
    assert torch.allclose(drift.line(batch, 1), LinearTrend().forecast(batch)[0], atol=1e-6)
    batch["rgb_t"][:] = 0.5
    batch["history"] = torch.stack([torch.full((2, 3, 8, 8), level) for level in (0.45, 0.4)], 1)
    assert torch.allclose(drift.line(batch, 3), torch.tensor(0.65), atol=1e-6)
    batch["history_valid"][:] = False
    assert torch.equal(drift.line(batch, 3), batch["rgb_t"]), "one year makes no line"


class Steps:
    """The last image, half of it and noise of the place; keeps the images it was shown."""

    def __init__(self) -> None:
        self.shown: list[torch.Tensor] = []

    def forecast(self, batch: dict, samples: int = 1, seed: int = 0) -> torch.Tensor:
        self.shown.append(batch["rgb_t"])
        shape = tuple(batch["rgb_t"].shape[1:])
        noise = torch.stack([patch_noise(batch["meta"], s, seed, shape) for s in range(samples)])
        return (0.25 + batch["rgb_t"] / 2 + 0.05 * noise).clamp(0, 1)


def test_every_system_forecasts_every_year(recipe):
    known = drift.windows(recipe, "strong", ["Brannoch"], PLAN, 2)
    written = []

    def captions(images, valid):
        written.append(images)
        return {"hidden": torch.zeros(len(images))}

    forecaster = Steps()
    made = drift.systems(forecaster, known, PLAN, 0, captions)
    assert {name: len(years[0]) for name, years in made.items()} == {
        "rollout": 3, "mean fed back": 3, "persistence": 1, "linear trend": 1,
        "oracle, mean of 40": 1, "oracle": 3,
    }  # fmt: skip
    assert {years.shape[0] for years in made.values()} == {3}
    assert torch.equal(made["persistence"][2, 0], known.batch["rgb_t"])
    assert torch.equal(made["linear trend"][1, 0], drift.line(known.batch, 2))
    assert torch.equal(made["oracle"], known.oracle)
    assert torch.equal(made["rollout"][0], made["mean fed back"][0])
    assert torch.equal(written[0], known.batch["rgb_t"])
    for year, image in zip(made["mean fed back"], forecaster.shown[-2:], strict=False):
        assert torch.equal(image, year.mean(0))
    assert not torch.equal(made["rollout"][1], made["mean fed back"][1])


def test_scores_are_what_they_say():
    g = torch.Generator().manual_seed(0)
    truth = 0.3 + 0.4 * torch.rand(2, 4, 3, 32, 32, generator=g)
    alike = 0.3 + 0.4 * torch.rand(2, 8, 4, 3, 32, 32, generator=g)
    blurred = truth.mean((-1, -2), keepdim=True).expand_as(truth)
    table = drift.scores(
        {"exact": truth[:, None], "off": truth[:, None] + 0.1, "alike": alike,
         "flat": blurred[:, None], "sure": truth[:, None] + 0.1 + alike / 10 - 0.05}, truth,
    ).set_index(["model", "ahead"])  # fmt: skip
    assert [*table.index][:3] == [("exact", 1), ("exact", 2), ("off", 1)]
    assert table.loc["exact", "psnr"].tolist() == [100, 100]
    assert (table.loc["exact", "crps"] == 0).all() and (table.loc["exact", "place"] == 1).all()
    assert np.allclose(table.loc["off", "psnr"], 20, atol=1e-3)
    assert np.allclose(table.loc["off", "crps"], 0.1, atol=1e-6)
    assert np.allclose(table.loc["off", "sharp"], 1, atol=1e-4)
    assert np.allclose(table.loc["alike", "spread_error"], 1, atol=0.03)
    assert (table.loc["sure", "spread_error"] < 0.3).all()
    assert (table.loc["alike", "psnr"] > table.loc["alike", "psnr_one"] + 2).all()
    assert (table.loc["flat", "sharp"] == 0).all() and (table.loc["flat", "place"] < 0.9).all()
    assert table.loc["off", "spread_error"].isna().all()


def test_the_liveliest_patch_changes_most():
    truth = torch.zeros(2, 3, 3, 4, 4)
    truth[1, 2] = 0.5
    truth[0, 1] = 0.9
    known = drift.Windows({"rgb_t": torch.zeros(3, 3, 4, 4)}, truth, truth, truth[:, None])
    assert drift.liveliest(known) == 2


def test_the_pictures_show_what_was_made(recipe):
    known = drift.windows(recipe, "strong", ["Brannoch"], PLAN, 2)
    made = drift.systems(Steps(), known, PLAN, 0, None)
    table = drift.scores(made, known.truth)
    first, *_, spread, _ = drift_figures.curves({"strong": table}).axes
    drawn = {line.get_label(): line.get_ydata() for line in first.lines}
    for name, asked in (("rollout", "rollout"), ("oracle", "oracle, mean of 40")):
        assert drawn[name].tolist() == table.loc[table["model"] == asked, "psnr"].tolist()
    assert len(drawn) == 5
    assert len([line for line in spread.lines if len(line.get_xdata()) == 3]) == 3
    axes = drift_figures.place(made, known, 1, PLAN).axes
    assert len(axes) == 3 * 9
    assert [ax.get_ylabel() for ax in axes[::9]] == ["2021", "2022", "2023"]
    shown = [np.moveaxis(ax.images[0].get_array(), -1, 0) for ax in axes[9 : 9 + 5]]
    wanted = [known.batch["rgb_t"][1], known.truth[1, 1], *made["rollout"][1, :3, 1]]
    assert all(np.array_equal(a, b) for a, b in zip(shown, wanted, strict=True))
