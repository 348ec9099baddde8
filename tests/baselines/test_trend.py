"""Mean and straight line of a pixel's past."""

import torch

from satjepa.baselines.trend import Climatology, LinearTrend


def batch_of(
    years: torch.Tensor, valid: torch.Tensor | None = None, there: list[bool] | None = None
) -> dict:
    """A batch of one place from its years (T,3,H,W), oldest first; valid (H,W) of the last."""
    earlier = years[:-1].flip(0)
    ok = torch.ones(years.shape[-2:], dtype=torch.bool)
    return {
        "rgb_t": years[-1:],
        "valid_t": (ok if valid is None else valid)[None, None],
        "history": earlier[None],
        "history_valid": torch.tensor([there or [True] * len(earlier)], dtype=torch.bool),
    }


def ramp(years: int) -> torch.Tensor:
    """Every pixel and band changes along a line of its own: (years,3,4,4) within [0.2, 0.8]."""
    start, end = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    return torch.stack([start + (end - start) * i / years for i in range(years + 1)])


def test_a_trend_is_exact_on_a_ramp():
    for years in (2, 3, 5):
        *known, truth = ramp(years)
        image = LinearTrend().forecast(batch_of(torch.stack(known)), samples=2)
        assert image.shape == (2, 1, 3, 4, 4) and torch.allclose(image[0, 0], truth, atol=1e-6)


def test_a_trend_skips_what_is_not_known():
    *known, truth = ramp(5)
    known[0], known[2] = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)  # oldest first; t-4, and t-2
    image = LinearTrend().forecast(batch_of(torch.stack(known), there=[True, False, True, False]))
    assert torch.allclose(image[0, 0], truth, atol=1e-6)
    known[3] = known[3] * (torch.arange(4) > 0)  # black pixels of an earlier year were not valid
    image = LinearTrend().forecast(batch_of(torch.stack(known), there=[True, False, True, False]))
    assert torch.allclose(image[0, 0], truth, atol=1e-6)


def test_a_trend_is_least_squares_and_clamped():
    years = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    design = torch.stack([torch.ones(4), torch.arange(4.0)], 1)
    line = torch.linalg.lstsq(design, years.flatten(1)).solution
    expected = (line[0] + 4 * line[1]).unflatten(0, (3, 4, 4)).clamp(0, 1)
    assert torch.allclose(LinearTrend().forecast(batch_of(years))[0, 0], expected, atol=1e-5)
    steep = torch.stack([torch.full((3, 2, 2), value) for value in (0.1, 0.5, 0.9)])
    assert LinearTrend().forecast(batch_of(steep)).max() == 1


def test_one_year_is_its_own_trend_and_mean():
    year = torch.rand(1, 3, 4, 4)
    for forecaster in (LinearTrend(), Climatology()):
        assert torch.equal(forecaster.forecast(batch_of(year))[0], year)
        two = torch.stack([torch.zeros(3, 4, 4), year[0]])
        assert torch.equal(forecaster.forecast(batch_of(two, there=[False]))[0], year)


def test_climatology_is_the_mean_of_the_known_years():
    years = torch.rand(3, 3, 4, 4) * 0.9 + 0.1
    assert torch.allclose(Climatology().forecast(batch_of(years))[0, 0], years.mean(0), atol=1e-6)
    valid = torch.ones(4, 4, dtype=torch.bool)
    valid[0] = False  # year t is not known there
    image = Climatology().forecast(batch_of(years, valid))[0, 0]
    assert torch.allclose(image[:, 0], years[:2, :, 0].mean(0), atol=1e-6)
    assert torch.allclose(image[:, 1:], years.mean(0)[:, 1:], atol=1e-6)
