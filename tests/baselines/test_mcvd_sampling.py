"""The noise levels and samplers of MCVD in closed form; test_mcvd.py has the golden ones."""

import pytest
import torch

from satjepa.baselines.mcvd_sampling import LEVELS, abar, sample


def test_level_0_is_the_noisiest():
    known = {
        0: 4.0358304e-05,
        250: 0.0033505505,
        500: 0.078587234,
        750: 0.52408534,
        990: 0.99810517,
        999: 0.99989998,
    }
    assert {j: abar()[j].item() for j in known} == pytest.approx(known, rel=1e-6)


def oracle(x0):
    """What a network would say that knows the image."""

    def eps(x, level):
        a = abar()[level].item()
        return (x - a**0.5 * x0) / (1 - a) ** 0.5

    return eps


@pytest.mark.parametrize("steps", [10, 100, 1000])
@pytest.mark.parametrize("ancestral", [True, False])
def test_a_network_that_knows_the_image_gives_it_back(steps, ancestral):
    generator = torch.Generator().manual_seed(0)
    x0 = 2 * torch.rand(2, 3, 4, 4, generator=generator) - 1
    x = torch.randn(2, 3, 4, 4, generator=generator)
    noise = (lambda i: torch.randn(x.shape, generator=generator)) if ancestral else None
    torch.testing.assert_close(sample(oracle(x0), x, steps, noise), x0, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("denoise", "levels"), [("none", []), ("fixed", [750]), ("reference", [3])]
)
def test_levels_that_are_visited_and_noise_that_is_asked_for(denoise, levels):
    asked = []
    drawn = []

    def eps(x, level):
        asked.append(level)
        return x

    def noise(i):
        drawn.append(i)
        return torch.zeros(1, 3, 2, 2)

    sample(eps, torch.ones(1, 3, 2, 2), 4, noise, denoise=denoise)
    assert asked == [0, 250, 500, 750, *levels]
    assert drawn == [0, 1, 2]  # the last step adds none


def test_noise_of_a_step_has_the_variance_of_the_posterior():
    """Two steps of an oracle of 0: after the first, x has mean r x and variance (1 - a') / (1 - a)
    b.
    """
    ones, (a, after) = torch.ones(1, 3, 2, 2), abar()[[0, 500]].tolist()
    seen = []
    b = 1 - abar()[0].item() / abar()[500].item()

    def eps(x, level):
        seen.append(x)
        return oracle(torch.zeros(()))(x, level)

    sample(eps, ones, 2, lambda i: 3 * ones)
    mean = (1 - b) ** 0.5 * (1 - after) / (1 - a)
    torch.testing.assert_close(seen[1], (mean + 3 * ((1 - after) / (1 - a) * b) ** 0.5) * ones)


def test_estimates_of_the_image_are_held_in_range_if_asked():
    x0 = torch.full((1, 3, 2, 2), 1.5)
    x = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample(oracle(x0), x, 10, None, clip=True), torch.ones_like(x0))
    torch.testing.assert_close(sample(oracle(x0), x, 10, None, clip=False), x0)


@pytest.mark.parametrize("steps", [0, 3, LEVELS + 1])
def test_steps_must_divide_the_levels(steps):
    with pytest.raises(ValueError, match="must divide 1000"):
        sample(oracle(0), torch.zeros(1), steps, None)
