"""Numbers as the published code computes them, where they are not those of
`satjepa.metrics.pixels`: to be understood, never to be put into a table.

Its training log and its evaluation have two sets of image metrics under the same names, and its
BLEU, ROUGE and CIDEr are neither what those names say nor of a forecast: they compare the captions
of two observed years.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from satjepa.metrics.pixels import SSIM_C1, SSIM_C2, SSIM_SIGMA, SSIM_WINDOW

ORDERS = (1, 2, 3, 4)  # of n-grams


def train_metrics(pred: Tensor, target: Tensor) -> dict[str, float]:
    """l1, mse, psnr (dB), ssim and gssim of the published training log, over a whole batch
    (B,3,H,W).

    Its GSSIM is the SSIM of both images blurred (Gaussian, sigma 2), not of gradients; psnr is
    infinite at mse 0. Each tensor is first put to [0, 1] by a guess from its own range (`as_unit`).
    """
    a = as_unit(pred.double())
    b = as_unit(target.double())
    mse = F.mse_loss(a, b).item()
    return {
        "l1": F.l1_loss(a, b).item(),
        "mse": mse,
        "psnr": 10 * math.log10(1 / mse) if mse else math.inf,
        "ssim": _ssim(a, b, eps=1e-8),
        "gssim": _ssim(_blur(a, 2.0), _blur(b, 2.0), eps=1e-8),
    }


def ssim_loss(reconstruction: Tensor, rgb: Tensor) -> float:
    """1 - SSIM as the published joint loss has it: nothing is clamped, so it may leave [0, 2].
    (B,3,H,W) both.
    """
    return 1 - _ssim(reconstruction.double(), rgb.double())


def as_unit(image: Tensor) -> Tensor:
    """A tensor that lies in [-1, 1] but not in [0, 1] is taken as signed, (x + 1) / 2; any other is
    clamped.
    """
    low, high = image.aminmax()
    signed = low >= -1.001 and high <= 1.001 and (low < 0 or high > 1)
    return (image + 1) / 2 if signed else image.clamp(0, 1)


def _blur(x: Tensor, sigma: float) -> Tensor:
    """11 x 11 Gaussian over each channel, zeros outside."""
    offset = torch.arange(SSIM_WINDOW, dtype=x.dtype, device=x.device) - SSIM_WINDOW // 2
    taps = torch.exp(-offset.square() / (2 * sigma**2))
    taps = (taps / taps.sum()).view(1, 1, -1, 1)
    flat = x.flatten(0, 1)[:, None]  # (B*C,1,H,W)
    pad = SSIM_WINDOW // 2
    return F.conv2d(F.conv2d(flat, taps, padding=(pad, 0)), taps.mT, padding=(0, pad)).view_as(x)


def _ssim(a: Tensor, b: Tensor, eps: float = 0.0) -> float:
    mean_a, mean_b, aa, bb, ab = (_blur(x, SSIM_SIGMA) for x in (a, b, a * a, b * b, a * b))
    over = (2 * mean_a * mean_b + SSIM_C1) * (2 * (ab - mean_a * mean_b) + SSIM_C2)
    under = (mean_a**2 + mean_b**2 + SSIM_C1) * (aa - mean_a**2 + bb - mean_b**2 + SSIM_C2)
    return (over / (under + eps)).mean().item()


def words_of(text: str) -> list[str]:
    """Lower case, cut at white space: what the published code does where NLTK is not installed."""
    return text.lower().split()


def pair_scores(pred: Sequence[str], ref: Sequence[str]) -> dict[str, float]:
    """bleu_1 .. bleu_4, rouge_l, cider of two lists of words; all 0 where one is empty.

    bleu_n: brevity penalty times the clipped precision of n-grams of that n only (no geometric
    mean). rouge_l: F1 of
    the longest common subsequence. cider: mean over n of the cosine of n-gram counts, without idf.
    """
    grams = [(_grams(pred, n), _grams(ref, n)) for n in ORDERS]
    brevity = min(1.0, math.exp(1 - len(ref) / len(pred))) if pred else 0.0
    bleu = {
        f"bleu_{n}": brevity * _share(p & r, p) for n, (p, r) in zip(ORDERS, grams, strict=True)
    }
    return bleu | {
        "rouge_l": rouge_l(pred, ref),
        "cider": sum(_cosine(p, r) for p, r in grams) / len(ORDERS),
    }


def caption_metrics(
    pairs: Sequence[tuple[str, str]], words: Callable[[str], Sequence[str]] = words_of
) -> dict[str, float]:
    """Means of `pair_scores` over (prediction, reference) texts; a blank one counts as 0
    (published); {} of zeros.
    """
    scores = [pair_scores(words(pred), words(ref)) for pred, ref in pairs] or [pair_scores((), ())]
    return {name: sum(score[name] for score in scores) / len(scores) for name in scores[0]}


def rouge_l(pred: Sequence[str], ref: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two lists of words; 0 without one."""
    row = [0] * (len(ref) + 1)  # lengths for the words of pred so far and each beginning of ref
    for word in pred:
        before = row
        row = [0]
        for i, other in enumerate(ref):
            row.append(before[i] + 1 if word == other else max(before[i + 1], row[i]))
    return 2 * row[-1] / (len(pred) + len(ref)) if row[-1] else 0.0


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _share(part: Counter[tuple[str, ...]], whole: Counter[tuple[str, ...]]) -> float:
    return part.total() / whole.total() if whole else 0.0


def _cosine(a: Counter[tuple[str, ...]], b: Counter[tuple[str, ...]]) -> float:
    length = math.hypot(*a.values()) * math.hypot(*b.values())
    return sum(count * b[gram] for gram, count in a.items()) / length if length else 0.0
