"""Metrics of pixels against golden vectors, skimage, torchmetrics and brute force.

And what no number may depend on.
"""

import math

import pytest
import torch
from safetensors.torch import load_file

from satjepa.metrics import pixels as metrics

PATCH_METRICS = [metrics.l1, metrics.mse, metrics.psnr, metrics.ssim, metrics.gssim]


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Two related images a sample, (3, 3, 40, 48): smooth structure, one of them noisier."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 5, 6, generator=generator)
    target = torch.nn.functional.interpolate(coarse, size=(40, 48), mode="bilinear")
    noise = torch.randn(target.shape, generator=generator)
    return (target + 0.05 * noise).clamp(0, 1), target


@pytest.fixture
def holes() -> torch.Tensor:
    """Valid mask (3, 1, 40, 48): a block at an edge, none, and a block inside."""
    valid = torch.ones(3, 1, 40, 48, dtype=torch.bool)
    valid[0, :, :5, 40:] = False
    valid[2, :, 30:33, 8:12] = False
    return valid


@pytest.mark.parametrize("case", ["noise", "structured_shift", "flat_identical", "signed_pred"])
@pytest.mark.parametrize("which", ["single0", "single_last", "batch"])
def test_golden_published_evaluation(shared, case: str, which: str) -> None:
    golden = load_file(shared / "reference/golden/g_image_metrics.safetensors")
    part = {"single0": slice(0, 1), "single_last": slice(-1, None), "batch": slice(None)}[which]
    pred = golden[f"{case}.pred"][part]
    target = golden[f"{case}.target"][part]
    ours = {name: getattr(metrics, name)(pred, target).mean() for name in ("l1", "mse", "ssim")}
    ours["psnr"] = metrics.psnr_of(
        ours["mse"]
    )  # the published batch PSNR is that of the batch's MSE
    ours["gssim"] = metrics.gssim(pred, target, per_tensor=which == "batch").mean()
    for name, value in ours.items():
        assert float(value) == pytest.approx(
            float(golden[f"out.evaluate.{case}.{which}.{name}"]), rel=1e-5, abs=1e-5
        )


def test_identical_images(pair) -> None:
    image = pair[1]
    assert metrics.l1(image, image).eq(0).all()
    assert metrics.psnr(image, image).eq(100.0).all()
    torch.testing.assert_close(metrics.ssim(image, image), torch.ones(3).double())
    torch.testing.assert_close(metrics.gssim(image, image), torch.ones(3).double())


def test_constant_shift() -> None:
    target = torch.full((2, 3, 16, 16), 0.5)
    pred = target + torch.tensor([0.1, 0.25]).view(2, 1, 1, 1)
    torch.testing.assert_close(
        metrics.l1(pred, target), torch.tensor([0.1, 0.25]).double(), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        metrics.mse(pred, target), torch.tensor([0.01, 0.0625]).double(), rtol=0, atol=1e-6
    )
    assert float(metrics.psnr(pred, target)[0]) == pytest.approx(20.0, abs=1e-4)
    luminance = (2 * 0.5 * 0.6 + 1e-4) / (0.25 + 0.36 + 1e-4)
    assert float(metrics.ssim(pred, target, padding="valid")[0]) == pytest.approx(
        luminance, abs=1e-6
    )


def test_ssim_equals_skimage(pair) -> None:
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    ours = metrics.ssim(*pair, padding="valid")
    wang = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1.0,
    }
    for score, pred, target in zip(ours, *pair, strict=True):
        reference = structural_similarity(
            *(x.double().numpy() for x in (pred, target)), channel_axis=0, **wang
        )
        assert float(score) == pytest.approx(reference, abs=1e-9)


def test_psnr_and_ssim_equal_torchmetrics(pair) -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    pred, target = (x.double() for x in pair)
    _, at_each_window = functional.structural_similarity_index_measure(
        pred, target, data_range=1.0, reduction="none", return_full_image=True
    )
    inside = (
        at_each_window[..., 5:-5, 5:-5].flatten(1).mean(1)
    )  # its border windows see a reflected image
    torch.testing.assert_close(
        metrics.ssim(pred, target, padding="valid"), inside, rtol=0, atol=1e-9
    )
    for score, a, b in zip(metrics.psnr(pred, target), pred, target, strict=True):
        reference = functional.peak_signal_noise_ratio(a, b, data_range=1.0)
        assert float(score) == pytest.approx(float(reference), abs=1e-5)  # theirs is float32


@pytest.mark.parametrize("metric", PATCH_METRICS)
def test_nodata_enters_no_number(metric, pair, holes) -> None:
    pred, target = pair
    score = metric(pred, target, holes)
    spoilt = metric(torch.where(holes, pred, torch.nan), torch.where(holes, target, 0.9), holes)
    assert score.isfinite().all() and torch.equal(score, spoilt)
    assert not torch.equal(score, metric(torch.where(holes, pred, 0.0), target)), (
        "the mask is what protects it"
    )


@pytest.mark.parametrize("metric", PATCH_METRICS)
def test_a_mask_without_holes_changes_nothing(metric, pair) -> None:
    torch.testing.assert_close(
        metric(*pair, torch.ones(3, 1, 40, 48, dtype=torch.bool)), metric(*pair)
    )


def test_ssim_leaves_out_just_the_windows_that_touch_a_hole(pair) -> None:
    pred, target = pair
    valid = torch.ones(3, 1, 40, 48, dtype=torch.bool)
    valid[..., :, 0] = False  # windows inside the image that begin at column 0 go, the others stay
    ours = metrics.ssim(pred, target, valid, padding="valid")
    torch.testing.assert_close(ours, metrics.ssim(pred[..., 1:], target[..., 1:], padding="valid"))


def test_gradients_at_a_hole_do_not_set_the_scale_of_gssim() -> None:
    side = 64
    generator = torch.Generator().manual_seed(0)
    distance = torch.minimum(torch.arange(side), side - 1 - torch.arange(side)).float()
    slope = (torch.minimum(distance, distance[:, None]) / 24).clamp(
        max=1
    )  # dark at the border, bright in the middle
    target, noise = (torch.rand(1, 3, side, side, generator=generator) for _ in range(2))
    target, pred = ((0.8 + 0.2 * x) * slope for x in (target, (target + noise) / 2))
    valid = torch.ones(1, 1, side, side, dtype=torch.bool)
    valid[..., 30:32, 30:32] = False
    assert float(metrics.gssim(pred, target, valid)) == pytest.approx(
        float(metrics.gssim(pred, target)), abs=0.02
    )


@pytest.mark.parametrize("metric", PATCH_METRICS)
def test_without_a_valid_pixel_there_is_no_number(metric, pair) -> None:
    valid = torch.ones(3, 1, 40, 48, dtype=torch.bool)
    valid[1] = False
    assert metric(*pair, valid).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("metric", PATCH_METRICS)
def test_a_sample_does_not_depend_on_its_batch(metric, pair, holes) -> None:
    whole = metric(*pair, holes)
    for i in range(3):
        torch.testing.assert_close(
            whole[i : i + 1], metric(pair[0][i : i + 1], pair[1][i : i + 1], holes[i : i + 1])
        )


@pytest.mark.parametrize("metric", PATCH_METRICS)
def test_autocast_does_not_lower_the_precision(metric, pair) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = metric(*pair)
    assert torch.equal(lowered, metric(*pair))


def test_changed_pixels(holes) -> None:
    rgb_t = torch.full((3, 3, 40, 48), 0.3)
    rgb_tp1 = rgb_t.clone()
    rgb_tp1[:, 0, :2] += 0.4  # a band by 0.4: 0.133 in the mean
    rgb_tp1[:, 0, 2:4] += 0.2  # 0.067: below the threshold
    expected = torch.zeros(3, 1, 40, 48, dtype=torch.bool)
    expected[:, :, :2] = True
    assert torch.equal(metrics.changed(rgb_t, rgb_tp1, threshold=0.1), expected)
    assert torch.equal(metrics.changed(rgb_t, rgb_tp1, holes, threshold=0.1), expected & holes)


def test_skill_pools_before_it_divides() -> None:
    forecast = torch.tensor([0.01, 0.5])
    persistence = torch.tensor([0.04, 0.001])
    pixels = torch.tensor([300, 100])
    assert metrics.skill(forecast, persistence, pixels) == pytest.approx(
        1 - (3 + 50) / (12 + 0.1), rel=1e-5
    )
    nothing = torch.tensor([0.2, torch.nan]), torch.tensor([0.4, torch.nan]), torch.tensor([5, 0])
    assert metrics.skill(*nothing) == pytest.approx(0.5), "a patch without pixels has no say"
    assert math.isnan(metrics.skill(forecast, torch.zeros(2), pixels)), "persistence was perfect"


def ensemble(members: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, 2, 3, 6, 5) members and (2, 3, 6, 5) truth, uniform."""
    generator = torch.Generator().manual_seed(members)
    draw = torch.rand(members + 1, 2, 3, 6, 5, generator=generator, dtype=torch.float64)
    return draw[1:], draw[0]


@pytest.mark.parametrize("fair", [True, False])
def test_crps_equals_brute_force(fair: bool) -> None:
    members, target = ensemble(5)
    distances = (members[:, None] - members[None]).abs()
    pairs = distances.sum((0, 1)) / (5 * 4 if fair else 25)
    expected = ((members - target).abs().mean(0) - pairs / 2).flatten(1).mean(1)
    torch.testing.assert_close(metrics.crps(members, target, fair=fair), expected)


def test_plain_crps_is_the_integral_of_the_squared_step_difference() -> None:
    members, target = ensemble(4)
    levels = torch.linspace(0, 1, 20001, dtype=torch.float64).view(-1, 1)
    x = members[:, 0, 0, 0, 0]
    y = target[0, 0, 0, 0]
    cdf = (x <= levels).double().mean(1)
    step = (y <= levels).double().squeeze(1)
    expected = (cdf - step).square().mean()
    ours = metrics.crps(x.view(4, 1, 1, 1, 1), y.view(1, 1, 1, 1), fair=False)
    assert float(ours) == pytest.approx(float(expected), abs=2e-4)


@pytest.mark.parametrize("fair", [True, False])
def test_crps_of_one_member_is_its_error(fair: bool) -> None:
    members, target = ensemble(1)
    torch.testing.assert_close(
        metrics.crps(members, target, fair=fair), metrics.l1(members[0], target)
    )


def test_fair_crps_does_not_depend_on_the_number_of_members() -> None:
    generator = torch.Generator().manual_seed(7)
    target = torch.rand(1, 3, 60, 60, generator=generator)
    small = torch.rand(2, 1, 3, 60, 60, generator=generator)
    large = torch.rand(16, 1, 3, 60, 60, generator=generator)
    fair = [float(metrics.crps(m, target)) for m in (small, large)]
    plain = [float(metrics.crps(m, target, fair=False)) for m in (small, large)]
    assert fair[0] == pytest.approx(1 / 6, abs=0.005) and fair[1] == pytest.approx(1 / 6, abs=0.005)
    assert plain[0] > plain[1] + 0.05


def test_a_reliable_ensemble_has_ratio_one_and_flat_ranks() -> None:
    generator = torch.Generator().manual_seed(3)
    draw = 0.5 + 0.1 * torch.randn(6, 2, 3, 80, 80, generator=generator)
    members = draw[1:]
    target = draw[0]
    pixels = torch.full((2,), 6400)
    error = metrics.mse(members.mean(0), target)
    assert metrics.spread_skill(metrics.spread(members), error, pixels) == pytest.approx(
        1.0, abs=0.02
    )
    narrow = members.mean(0) + 0.5 * (members - members.mean(0))
    assert metrics.spread_skill(metrics.spread(narrow), error, pixels) == pytest.approx(
        0.5, abs=0.02
    )
    counts = metrics.rank_histogram(members, target)
    assert counts.shape == (2, 6) and counts.sum(1).tolist() == pytest.approx([19200, 19200])
    assert counts.sum(0).div(38400).tolist() == pytest.approx([1 / 6] * 6, abs=0.01)
    assert metrics.rank_histogram(narrow, target).sum(0)[0] > 1.5 * counts.sum(0)[0], (
        "too narrow: truth falls outside"
    )


def test_ranks_of_ties_are_shared() -> None:
    members = torch.tensor([0.2, 0.4, 0.4]).view(3, 1, 1, 1, 1)
    counts = {
        y: metrics.rank_histogram(members, torch.full((1, 1, 1, 1), y))[0].tolist()
        for y in (0.1, 0.3, 0.4, 0.9)
    }
    assert (
        counts[0.1] == [1, 0, 0, 0] and counts[0.3] == [0, 1, 0, 0] and counts[0.9] == [0, 0, 0, 1]
    )
    assert counts[0.4] == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])


def test_nodata_enters_no_ensemble_number(holes) -> None:
    generator = torch.Generator().manual_seed(5)
    draw = torch.rand(5, 3, 3, 40, 48, generator=generator)
    spoilt = torch.where(holes, draw, torch.nan)
    assert torch.equal(
        metrics.crps(draw[1:], draw[0], holes), metrics.crps(spoilt[1:], spoilt[0], holes)
    )
    assert torch.equal(metrics.spread(draw[1:], holes), metrics.spread(spoilt[1:], holes))
    ranks = metrics.rank_histogram(draw[1:], draw[0], holes)
    assert torch.equal(ranks, metrics.rank_histogram(spoilt[1:], spoilt[0], holes))
    torch.testing.assert_close(ranks.sum(1), 3.0 * holes.flatten(1).sum(1).double())


def test_ensembles_are_clamped() -> None:
    members, target = (2 * x - 0.5 for x in ensemble(4))
    inside = members.clamp(0, 1), target.clamp(0, 1)
    assert torch.equal(metrics.crps(members, target), metrics.crps(*inside))
    assert torch.equal(metrics.spread(members), metrics.spread(inside[0]))
    assert torch.equal(metrics.rank_histogram(members, target), metrics.rank_histogram(*inside))
