"""Several years ahead: each member goes on from its own image, with its own words and noise."""

import pytest
import torch

from satjepa.captions.rules import caption
from satjepa.forecast.rollout import by_rule, rollout, year_later
from satjepa.models.flow import patch_noise

SIDE = 16


def batch_of(places: int = 3, history: int = 2, side: int = SIDE) -> dict:
    """Patches of grey noise with `history` earlier years, all of it valid."""
    g = torch.Generator().manual_seed(5)
    rgb = 0.4 + 0.2 * torch.rand(places, 1 + history, 3, side, side, generator=g)
    return {
        "rgb_t": rgb[:, 0],
        "valid_t": torch.ones(places, 1, side, side, dtype=torch.bool),
        "history": rgb[:, 1:],
        "history_valid": torch.ones(places, history, dtype=torch.bool),
        "meta": [
            {"preset": "", "region": "here", "year": 2020, "x": 8 * i, "y": 0, "aug": 0}
            for i in range(places)
        ],
    }


def some(batch: dict, places: list[int]) -> dict:
    """The batch of these places, in this order."""
    return {
        name: [value[i] for i in places] if name == "meta" else value[places]
        for name, value in batch.items()
    }


class Wanders:
    """The last image and noise of its place, not clamped; keeps what it was asked."""

    def __init__(self, deviation: float = 0.01) -> None:
        self.deviation = deviation
        self.asked: list[tuple[dict, int]] = []
        self.seeds: list[int] = []

    def forecast(self, batch: dict, samples: int = 1, seed: int = 0) -> torch.Tensor:
        self.asked.append((batch, samples))
        self.seeds.append(seed)
        shape = tuple(batch["rgb_t"].shape[1:])
        noise = [patch_noise(batch["meta"], s, seed, shape) for s in range(samples)]
        return batch["rgb_t"] + self.deviation * torch.stack(noise)


class Recursion:
    """x(t+1) = x(t) / 2 + x(t-1) / 4 + number of the sample / 100: known by hand."""

    def forecast(self, batch: dict, samples: int = 1, seed: int = 0) -> torch.Tensor:
        step = torch.arange(samples)[:, None, None, None, None] / 100
        return batch["rgb_t"] / 2 + batch["history"][:, 0] / 4 + step


class Words:
    """Writes the mean of each image as its `hidden`, and keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, images: torch.Tensor, valid: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append((images, valid))
        return {"hidden": images.mean((1, 2, 3))}


def test_the_first_year_is_the_forecast_itself():
    batch = batch_of()
    for years in (1, 3):
        stories = rollout(Wanders(), batch, 4, 7, years)
        assert stories.shape == (years, 4, 3, 3, SIDE, SIDE)
        assert torch.equal(stories[0], Wanders().forecast(batch, 4, 7))


def test_a_known_recursion_gives_known_values():
    """With x(t) = 0.8 and x(t-1) = 0.4; the second member is 0.01 higher in the first year alone,
    as each is asked for alone afterwards.
    """
    batch = batch_of()
    batch["rgb_t"] = torch.full_like(batch["rgb_t"], 0.8)
    batch["history"] = torch.full_like(batch["history"], 0.4)
    stories = rollout(Recursion(), batch, 2, 0, 3)
    wanted = [[0.5, 0.51], [0.45, 0.455], [0.35, 0.355]]
    assert torch.allclose(stories.mean((2, 3, 4, 5)), torch.tensor(wanted), atol=1e-6)
    assert stories.flatten(2).std(-1).max() < 1e-6


def test_what_a_later_year_is_shown():
    """The history shifts by a year and keeps its length; nothing of the old year stays."""
    batch = batch_of()
    extra = {name: torch.rand(3, 3, SIDE, SIDE) for name in ("rgb_tp1", "oracle_mean")}
    extra |= {"text_given": {"hidden": torch.ones(3)}, "is_given": torch.ones(3, 3).bool()}
    batch["history_valid"][1, 0] = False
    forecaster = Wanders()
    stories = rollout(forecaster, batch | extra, 1, 0, 3)
    (first, _), (second, _), (third, _) = forecaster.asked
    assert first["text_given"] is extra["text_given"], "given captions lead the first year"
    assert set(third) == set(batch)
    assert torch.equal(second["rgb_t"], stories[0, 0])
    assert torch.equal(second["history"][:, 0], batch["rgb_t"])
    assert torch.equal(second["history"][:, 1], batch["history"][:, 0])
    assert torch.equal(third["rgb_t"], stories[1, 0])
    assert torch.equal(third["history"][:, 0], stories[0, 0])
    assert torch.equal(third["history"][:, 1], batch["rgb_t"])
    assert second["history_valid"].tolist() == [[True, True], [True, False], [True, True]]
    assert third["history_valid"].all()
    assert [x["meta"][1]["year"] for x in (first, second, third)] == [2020, 2021, 2022]
    assert batch["meta"][0]["year"] == 2020 and batch["history_valid"][1, 0].item() is False


def test_a_forecaster_without_history_has_none_later():
    forecaster = Wanders()
    rollout(forecaster, batch_of(history=0), 1, 0, 2)
    assert forecaster.asked[1][0]["history"].shape == (3, 0, 3, SIDE, SIDE)
    assert forecaster.asked[1][0]["history_valid"].shape == (3, 0)


def test_what_was_not_seen_stays_unseen():
    """A hole is black and masked in every year; a year with more holes than land is none of the
    history.
    """
    batch = batch_of()
    batch["valid_t"][0, :, :4] = False
    batch["valid_t"][1, :, 4:] = False
    batch["rgb_t"] = batch["rgb_t"] * batch["valid_t"]
    later = year_later(batch, torch.full_like(batch["rgb_t"], 0.7))
    assert torch.equal(later["valid_t"], batch["valid_t"])
    assert torch.equal(later["rgb_t"], 0.7 * batch["valid_t"].expand(-1, 3, -1, -1))
    assert later["history_valid"][:, 0].tolist() == [True, False, True]
    assert not later["history"][1, 0].any() and later["history"][0, 0].any()


def test_members_stay_apart():
    """Which other members there are does not matter to one, nor do they share noise; the spread of
    independent steps grows as the root of their number.
    """
    batch = batch_of(1, side=64)
    stories = rollout(Wanders(0.02), batch, 24, 0, 4)
    assert torch.equal(rollout(Wanders(0.02), batch, 5, 0, 4), stories[:, :5])
    spread = stories.var(1).mean((1, 2, 3, 4)).sqrt()
    assert torch.allclose(spread, 0.02 * torch.arange(1, 5).sqrt(), rtol=0.01)
    steps = (stories[1:] - stories[:-1]).flatten(0, 1).flatten(1)  # (3*24, pixels)
    alike = torch.corrcoef(steps) - torch.eye(len(steps))
    assert alike.abs().max() < 0.05


def test_neither_size_nor_order_of_the_batch_matters_and_the_seed_does():
    batch = batch_of(5)
    stories = rollout(Wanders(), batch, 3, 1, 3)
    for places in ([4, 1], [2], [4, 3, 2, 1, 0]):
        assert torch.equal(rollout(Wanders(), some(batch, places), 3, 1, 3), stories[:, :, places])
    assert torch.equal(rollout(Wanders(), batch, 3, 1, 3), stories)
    other = rollout(Wanders(), batch, 3, 2, 3)
    moves = (stories[1:] - stories[:-1] - other[1:] + other[:-1]).abs().mean((2, 3, 4, 5))
    assert (moves > 0.005).all(), "every later year has noise of its own seed"


def test_a_forecaster_is_always_asked_for_batches_of_one_size():
    """So that a shape is compiled once, and what depends on it in the last bit does not change."""
    forecaster = Wanders()
    rollout(forecaster, batch_of(), 4, 0, 3)
    assert [samples for _, samples in forecaster.asked] == [4] + [1] * 8
    assert {len(batch["meta"]) for batch, _ in forecaster.asked} == {3}


def test_each_later_forecast_has_a_seed_of_its_own():
    """Also for a forecaster whose noise does not know the year."""
    forecaster = Wanders()
    rollout(forecaster, batch_of(1), 3, 0, 3)
    assert forecaster.seeds[0] == 0 and len(set(forecaster.seeds)) == 1 + 3 * 2
    assert all(0 <= seed < 2**63 for seed in forecaster.seeds), "as random generators take them"


def test_captions_are_written_from_the_members_own_image():
    words = Words()
    forecaster = Wanders()
    batch = batch_of() | {"text_t": {"hidden": torch.zeros(3)}}
    stories = rollout(forecaster, batch, 2, 0, 3, words)
    shown = [images for images, _ in words.seen]
    wanted = [stories[ahead, member] for member in (0, 1) for ahead in (0, 1)]
    assert len(shown) == 4 and all(map(torch.equal, shown, wanted))
    assert forecaster.asked[0][0]["text_t"] is batch["text_t"]
    for (later, _), images in zip(forecaster.asked[1:], shown, strict=True):
        assert torch.equal(later["text_t"]["hidden"], images.mean((1, 2, 3)))


def test_captions_by_rule_are_those_of_the_image_and_its_mask():
    batch = batch_of(2)
    batch["valid_t"][1, :, :6] = False
    texts = by_rule(list)(batch["rgb_t"], batch["valid_t"])
    for text, rgb, valid in zip(texts, batch["rgb_t"], batch["valid_t"], strict=True):
        assert text == caption(rgb.numpy(), valid[0].numpy(), encoding="display")
    assert "No data in" in texts[1].informative and "No data in" not in texts[0].informative


def test_what_rollout_refuses():
    with pytest.raises(ValueError, match="0 years of 8 members"):
        rollout(Wanders(), batch_of(), years=0)
    with pytest.raises(ValueError, match="1 years of 0 members"):
        rollout(Wanders(), batch_of(), 0)
    worded = batch_of() | {"text_t": {}}
    with pytest.raises(ValueError, match=r"captions=by_rule\(embed\)"):
        rollout(Wanders(), worded, years=2)
    assert len(rollout(Wanders(), worded, years=1)) == 1
