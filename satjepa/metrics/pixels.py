"""Every number of every table, as pure functions of images.

Images are (B, 3, H, W) in [0, 1] (values outside are clamped, as a display would); `valid` is an
optional bool mask (B, 1, H, W) and a pixel where it is False enters no number, whatever it holds,
NaN included. Each function returns one float64 per sample, (B,), NaN where a sample has no pixel
left to score. Everything is computed in float64, never under autocast, and never depends on the
other samples of the batch. `pool` turns per-sample values into the value of a set.

Formulas: the evaluation script of Sat-JEPA-Diff (l1, mse, psnr, ssim, gssim), Wang et al. 2004
(SSIM), Ferro 2014 (fair CRPS), Fortin et al. 2014 (spread and skill), Hamill 2001 (rank histogram).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DATA_RANGE = 1.0
# dB, given to an error below 1e-10: identical images must not make a mean infinite.
PSNR_CAP = 100.0
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * DATA_RANGE) ** 2
SSIM_C2 = (0.03 * DATA_RANGE) ** 2
GSSIM_SCALES = (1.0, 0.5, 0.25)
RATIO_LIMIT = 1e-12  # a skill or a ratio against less than this is undefined, not huge


def _clean(image: Tensor, valid: Tensor | None) -> Tensor:
    """float64 in [0, 1], zero where invalid: a NaN there cannot spread through a window."""
    image = image.double().clamp(0.0, 1.0)
    return image if valid is None else torch.where(valid, image, 0.0)


def masked_mean(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of x (B, C, H, W) over channels and valid pixels (B, 1, H, W): (B,) float64.

    NaN where a sample has no valid pixel.
    """
    x = x.double()
    if valid is None:
        return x.flatten(1).mean(1)
    total = torch.where(valid, x, 0.0).flatten(1).sum(1)
    values = valid.flatten(1).sum(1) * x.shape[1]  # valid pixels times channels
    return total / values  # 0/0 = NaN: nothing to score


def pool(values: Tensor, weights: Tensor) -> float:
    """Value of a set: mean of per-sample `values` (N,) weighted by their pixel counts (N,).

    NaN if all counts are 0.
    """
    used = weights > 0
    values = values[used].double()
    weights = weights[used].double()
    return float((values * weights).sum() / weights.sum())


def errors(pred: Tensor, target: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Absolute and squared error of each pixel, averaged over bands: two (B, 1, H, W) float64.

    0 where invalid.
    """
    difference = _clean(pred, valid) - _clean(target, valid)
    return difference.abs().mean(1, keepdim=True), difference.square().mean(1, keepdim=True)


def l1(pred: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean absolute error in [0, 1]: (B,)."""
    return masked_mean(errors(pred, target, valid)[0], valid)


def mse(pred: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean squared error in [0, 1]: (B,)."""
    return masked_mean(errors(pred, target, valid)[1], valid)


def psnr_of(mse_value: Tensor) -> Tensor:
    """10 log10(1 / mse) in dB for data range 1; of any shape.

    PSNR_CAP (100 dB) where mse < 1e-10, as published.
    """
    mse_value = torch.as_tensor(mse_value, dtype=torch.float64)
    decibels = 10.0 * torch.log10(DATA_RANGE**2 / mse_value.clamp_min(1e-10))
    return torch.where(mse_value < 1e-10, PSNR_CAP, decibels)


def psnr(pred: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB: (B,). A table's `psnr` is the mean of these, not the PSNR
    of the pooled MSE.
    """
    return psnr_of(mse(pred, target, valid))


def skill(mse_forecast: Tensor, mse_reference: Tensor, weights: Tensor) -> float:
    """1 - MSE / MSE of the reference (persistence): 1 is perfect, 0 no better than it.

    Both errors (N,) are pooled over the set by pixel counts `weights` (N,) before the ratio is
    taken: a mean of per-patch ratios would be ruled by patches where nothing changed. NaN where the
    reference makes no error.
    """
    reference = pool(mse_reference, weights)
    if not reference > RATIO_LIMIT:  # NaN too
        return float("nan")
    return 1.0 - pool(mse_forecast, weights) / reference


def changed(
    rgb_t: Tensor, rgb_tp1: Tensor, valid: Tensor | None = None, threshold: float = 0.1
) -> Tensor:
    """Valid pixels that changed, (B, 1, H, W) bool: mean over bands of |rgb(t+1) - rgb(t)|.

    A pixel changed if that is more than `threshold`.
    """
    difference = _clean(rgb_tp1, valid) - _clean(rgb_t, valid)
    large = difference.abs().mean(1, keepdim=True) > threshold
    return large if valid is None else large & valid


def _whole_windows(valid: Tensor, size: int, padding: int) -> Tensor:
    """True where a size x size window holds no invalid pixel: (B, 1, H', W').

    What lies outside the image is not invalid.
    """
    return F.max_pool2d((~valid).double(), size, stride=1, padding=padding) == 0


def _gaussian_band(size: int, padding: int, device: torch.device) -> Tensor:
    """The 11-tap Gaussian as a banded matrix (size', size).

    A matrix product is ten times as fast as a float64 convolution.
    """
    rows = torch.arange(size + 2 * padding - SSIM_WINDOW + 1, device=device).view(-1, 1)
    # Which tap of which window meets which pixel, (size', size).
    tap = torch.arange(size, device=device) - rows + padding
    centre = SSIM_WINDOW // 2
    bell = torch.exp(-(tap - centre).double().square() / (2 * SSIM_SIGMA**2))
    weights = bell * (tap >= 0) * (tap < SSIM_WINDOW)
    taps = [math.exp(-((k - centre) ** 2) / (2 * SSIM_SIGMA**2)) for k in range(SSIM_WINDOW)]
    return weights / math.fsum(taps)


def _blur(x: Tensor, padding: int) -> Tensor:
    """Separable 11 x 11 Gaussian over each channel; zeros outside the image when padded."""
    height, width = x.shape[-2:]
    down = _gaussian_band(height, padding, x.device)
    across = _gaussian_band(width, padding, x.device)
    return down @ x @ across.T


def _ssim(a: Tensor, b: Tensor, valid: Tensor | None, padding: str) -> Tensor:
    """SSIM of clean float64 images, averaged over channels and whole windows: (B,)."""
    margin = {"zero": SSIM_WINDOW // 2, "valid": 0}[padding]
    moments = _blur(torch.cat([a, b, a * a, b * b, a * b], 1), margin)  # (B, 5 C, H', W')
    mean_a, mean_b, aa, bb, ab = moments.chunk(5, 1)
    var_a = aa - mean_a**2
    var_b = bb - mean_b**2
    cov = ab - mean_a * mean_b
    structure = (2 * cov + SSIM_C2) / (var_a + var_b + SSIM_C2)
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    whole = None if valid is None else _whole_windows(valid, SSIM_WINDOW, margin)
    return masked_mean(luminance * structure, whole)


def ssim(
    pred: Tensor, target: Tensor, valid: Tensor | None = None, padding: str = "zero"
) -> Tensor:
    """Structural similarity, at most 1: (B,).

    11 x 11 Gaussian window, sigma 1.5, per channel, C1 = 1e-4, C2 = 9e-4, population variances.
    `padding="zero"` is the published evaluation (windows reach over the border, where both images
    are 0); `padding="valid"` averages over windows inside the image only and equals skimage, and
    torchmetrics but for the border windows it adds by reflection. Windows touching an invalid pixel
    are excluded.
    """
    return _ssim(_clean(pred, valid), _clean(target, valid), valid, padding)


def _sobel(image: Tensor) -> Tensor:
    """Gradient magnitude of the channel mean, zeros outside: (B, 3, H, W) -> (B, 1, H, W)."""
    taps = [[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    kernel = torch.tensor(taps, dtype=torch.float64, device=image.device)
    both = torch.stack([kernel, kernel.T]).unsqueeze(1)  # (2, 1, 3, 3): across and down
    gradient = F.conv2d(image.mean(1, keepdim=True), both, padding=1)
    return (gradient.square().sum(1, keepdim=True) + 1e-8).sqrt()


def _unit_range(x: Tensor, valid: Tensor | None, per_tensor: bool) -> Tensor:
    """Min-max scaling over valid pixels, per image (or over the whole tensor); 0 where invalid."""
    dims = (0, 1, 2, 3) if per_tensor else (1, 2, 3)
    inside = torch.ones_like(x, dtype=torch.bool) if valid is None else valid
    low = torch.where(inside, x, torch.inf).amin(dims, keepdim=True)
    high = torch.where(inside, x, -torch.inf).amax(dims, keepdim=True)
    return torch.where(inside, (x - low) / (high - low + 1e-8), 0.0)


def _gradient_map(
    image: Tensor, valid: Tensor | None, per_tensor: bool
) -> tuple[Tensor, Tensor | None]:
    """Scaled Sobel magnitude (B, 1, H, W), and where it is made of valid pixels only."""
    whole = None if valid is None else _whole_windows(valid, 3, 1)
    return _unit_range(_sobel(image), whole, per_tensor), whole


def gssim(
    pred: Tensor, target: Tensor, valid: Tensor | None = None, per_tensor: bool = False
) -> Tensor:
    """Gradient similarity, at most 1: (B,).

    The mean over scales 1, 1/2, 1/4 of the SSIM of Sobel magnitude maps. Images are resized
    (bilinear, half-pixel centres, no anti-alias), turned into gradient maps of the channel mean,
    and min-max scaled. Departure: the published script scales over the whole tensor, so that a
    patch's score depends on its batch; here each image is scaled by itself (the same for a batch of
    one). `per_tensor=True` is the published scaling. A pixel of a smaller scale is valid if all it
    was made of is; NaN if some scale has no whole window left.
    """
    images = (_clean(pred, valid), _clean(target, valid))
    scores = []
    for scale in GSSIM_SCALES:
        size = [int(scale * side) for side in pred.shape[-2:]]
        a, b = (F.interpolate(image, size=size, mode="bilinear") for image in images)
        shrunk = None
        if valid is not None:
            share = F.interpolate(valid.double(), size=size, mode="bilinear")
            shrunk = share > 1 - 1e-9
        a, whole = _gradient_map(a, shrunk, per_tensor)
        b, _ = _gradient_map(b, shrunk, per_tensor)
        scores.append(_ssim(a, b, whole, "zero"))
    return torch.stack(scores).mean(0)


def crps(members: Tensor, target: Tensor, valid: Tensor | None = None, fair: bool = True) -> Tensor:
    """Continuous ranked probability score of an ensemble (S, B, 3, H, W): (B,).

    Averaged over pixels and bands:

    mean_s |x_s - y| - 1/2 mean_{s != t} |x_s - x_t|. The mean over pairs divides by S (S - 1): the
    fair estimator (Ferro 2014), unbiased for the score of the distribution the members are drawn
    from, the one in the tables. `fair=False` divides by S^2: the score of the S members themselves,
    larger for a small ensemble. With one member there is no pair and the score is the mean absolute
    error. Lower is better, in units of [0, 1].
    """
    members = _clean(members, valid)
    target = _clean(target, valid)
    count = len(members)
    error = (members - target).abs().mean(0)
    # Sum over pairs of |x_s - x_t| = sum of ordered values x (2 rank - S + 1).
    ordered = members.sort(0).values
    rank = torch.arange(count, dtype=torch.float64, device=members.device).view(-1, 1, 1, 1, 1)
    pairs = (ordered * (2 * rank - count + 1)).sum(0)  # (B, 3, H, W)
    divisor = max(count * (count - 1), 1) if fair else count**2
    return masked_mean(error - pairs / divisor, valid)


def spread(members: Tensor, valid: Tensor | None = None) -> Tensor:
    """Expected squared error of the ensemble mean if truth were one more member: (B,).

    (S + 1) / S times the unbiased variance over the S >= 2 members (S, B, 3, H, W), averaged over
    pixels and bands.
    """
    members = _clean(members, valid)
    return masked_mean(members.var(0) * (len(members) + 1) / len(members), valid)


def spread_skill(spread_value: Tensor, mse_of_mean: Tensor, weights: Tensor) -> float:
    """sqrt(pooled spread / pooled MSE of the ensemble mean), all (N,).

    1 is reliable, below 1 over-confident; NaN where the mean makes no error.
    """
    error = pool(mse_of_mean, weights)
    if not error > RATIO_LIMIT:  # NaN too
        return float("nan")
    return (pool(spread_value, weights) / error) ** 0.5


def rank_histogram(members: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """How often the truth has each rank among the S members: counts (B, S + 1).

    Flat for a reliable ensemble. Counts valid pixels of all bands; a truth tied with members
    (clamped or 8-bit values) is shared evenly among the ranks it could have.
    """
    members = _clean(members, valid)
    target = _clean(target, valid)
    below = (members < target).sum(0)  # (B, 3, H, W)
    ties = (members == target).sum(0)
    weight = 1.0 / (ties + 1.0).double()
    if valid is not None:
        weight = weight * valid
    counts = []
    for rank in range(len(members) + 1):
        possible = (below <= rank) & (rank <= below + ties)
        counts.append((weight * possible).flatten(1).sum(1))  # (B,)
    return torch.stack(counts, 1)
