"""Caption scores as the published code computes them: to be understood, never put into a table.

Its BLEU, ROUGE and CIDEr are neither what those names say (`satjepa.metrics.words` is) nor of a
forecast: they compare the captions of two observed years (notebook 10_published).
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from satjepa.metrics.words import ORDERS, longest_common_subsequence, ngrams


def words_of(text: str) -> list[str]:
    """Lower case, cut at white space: what the published code does where NLTK is not installed."""
    return text.lower().split()


def pair_scores(pred: Sequence[str], ref: Sequence[str]) -> dict[str, float]:
    """bleu_1 .. bleu_4, rouge_l, cider of two lists of words; all 0 where one is empty.

    bleu_n: brevity penalty times the clipped precision of n-grams of that n only (no geometric
    mean). rouge_l: F1 of the longest common subsequence. cider: mean over n of the cosine of n-gram
    counts, without idf.
    """
    brevity = min(1.0, math.exp(1 - len(ref) / len(pred))) if pred else 0.0
    scores = {}
    cosines = 0.0
    for n in ORDERS:
        pred_grams = ngrams(pred, n)
        ref_grams = ngrams(ref, n)
        scores[f"bleu_{n}"] = brevity * _share(pred_grams & ref_grams, pred_grams)
        cosines += _cosine(pred_grams, ref_grams)
    return scores | {"rouge_l": rouge_l(pred, ref), "cider": cosines / len(ORDERS)}


def caption_metrics(
    pairs: Sequence[tuple[str, str]], words: Callable[[str], Sequence[str]] = words_of
) -> dict[str, float]:
    """Means of `pair_scores` over (prediction, reference) texts; all 0 without a pair.

    A blank text counts as 0, as published.
    """
    scores = [pair_scores(words(pred), words(ref)) for pred, ref in pairs]
    if not scores:
        return pair_scores((), ())
    means = {}
    for name in scores[0]:
        means[name] = sum(score[name] for score in scores) / len(scores)
    return means


def rouge_l(pred: Sequence[str], ref: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two lists of words; 0 without one."""
    longest = longest_common_subsequence(pred, ref)
    return 2 * longest / (len(pred) + len(ref)) if longest else 0.0


def _share(part: Counter[tuple[str, ...]], whole: Counter[tuple[str, ...]]) -> float:
    return part.total() / whole.total() if whole else 0.0


def _cosine(a: Counter[tuple[str, ...]], b: Counter[tuple[str, ...]]) -> float:
    lengths = math.hypot(*a.values()) * math.hypot(*b.values())
    if not lengths:
        return 0.0
    return sum(count * b[gram] for gram, count in a.items()) / lengths
