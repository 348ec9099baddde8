"""Captions compared as words: BLEU, ROUGE-L and CIDEr as the COCO caption evaluation defines them.

There are N places with one candidate text each, and one reference text or several: `references`
holds for each place a text or a list of texts. What is computed agrees with pycocoevalcap 1.2
given the same tokens; numbers from it stand in tests/metrics/test_word_scores.py.

Tokens: lower case; words are runs of letters and digits, with what joins them inside (hyphen,
apostrophe, the point or comma of a number); all else is dropped. pycocoevalcap tokenises with
Stanford's Java program: the same tokens for captions by rule, but it cuts "don't" in two and keeps
brackets and "%".

Sources: Papineni et al. 2002 (BLEU), Lin 2004 (ROUGE-L), Vedantam et al. 2015 (CIDEr), Chen et al.
2015 (the COCO evaluation), Hyyrö 2004 (the longest common subsequence by bits of an integer).
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

ORDERS = (1, 2, 3, 4)  # of n-grams
ROUGE_BETA = 1.2  # weight of recall against precision
CIDER_SIGMA = 6.0  # words, of the Gaussian over the difference of lengths
CIDER_SCALE = 10.0
WORD = re.compile(r"\d+(?:[.,]\d+)+|\w+(?:[-'’]\w+)*")

Words = Sequence[str]
Gram = tuple[str, ...]
References = Sequence[str | Sequence[str]]


def tokenise(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; none for a blank text."""
    return WORD.findall(text.lower())


def ngrams(words: Words, n: int) -> Counter[Gram]:
    """How often each run of n words stands in a list of words; empty where it is shorter."""
    shifted = [words[i:] for i in range(n)]
    return Counter(zip(*shifted, strict=False))


def longest_common_subsequence(a: Words, b: Words) -> int:
    """Words of the longest sequence that stands, in order but with gaps, in both lists."""
    places: dict[str, int] = {}  # of each word in b, as the bits of an integer
    for i, word in enumerate(b):
        places[word] = places.get(word, 0) | 1 << i
    ones = (1 << len(b)) - 1
    row = ones  # bit i is 0 where b[: i + 1] shares one word more with a so far than b[:i] does
    for word in a:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & ones
    return len(b) - row.bit_count()


def caption_scores(candidates: Sequence[str], references: References) -> dict[str, float]:
    """bleu_1 .. bleu_4 of the corpus, and the means over places of `rouge_l` and `cider`.

    ValueError as `bleu` raises.
    """
    return bleu(candidates, references) | {
        "rouge_l": float(rouge_l(candidates, references).mean()),
        "cider": float(cider(candidates, references).mean()),
    }


def bleu(candidates: Sequence[str], references: References) -> dict[str, float]:
    """BLEU of the corpus as bleu_1 .. bleu_4, in [0, 1], without smoothing.

    bleu_n is the geometric mean of the precisions of the orders 1 .. n, times the brevity penalty
    min(1, exp(1 - r / c)). A precision is the n-grams of all candidates that a reference of their
    place has, each counted at most as often as in the reference that has it most often, over all
    n-grams of the candidates. c: words of all candidates; r: of the references, in each place of
    the one closest in length, the shorter of two as close. Where an order has no match, or no
    candidate has n words, bleu_n and those after it are 0.

    ValueError for other numbers of candidates and of places, without a place or for a place without
    a reference, and for a text in place of a list of texts.
    """
    matched = dict.fromkeys(ORDERS, 0)
    total = dict.fromkeys(ORDERS, 0)
    candidate_words = 0
    reference_words = 0
    for candidate, texts in _tokenised(candidates, references):
        length = len(candidate)
        lengths = [len(text) for text in texts]
        candidate_words += length
        reference_words += min(lengths, key=lambda other: (abs(other - length), other))
        for n in ORDERS:
            made = ngrams(candidate, n)
            most: Counter[Gram] = Counter()
            for text in texts:
                most |= ngrams(text, n)
            matched[n] += (made & most).total()
            total[n] += made.total()
    scores = {}
    product = 1.0
    for n in ORDERS:
        product *= matched[n] / total[n] if total[n] else 0.0
        brevity = min(1.0, math.exp(1 - reference_words / candidate_words)) if product else 0.0
        scores[f"bleu_{n}"] = brevity * product ** (1 / n)
    return scores


def rouge_l(candidates: Sequence[str], references: References) -> np.ndarray:
    """ROUGE-L of each place, in [0, 1]: (N,) float64.

    With l the length of the longest common subsequence, P = l / words of the candidate and R = l /
    words of the reference, each the largest over the references of the place:
    (1 + b²) P R / (R + b² P), b = `ROUGE_BETA`. 0 where no word is shared. ValueError as `bleu`.
    """
    scores = []
    for candidate, texts in _tokenised(candidates, references):
        precision = 0.0
        recall = 0.0
        for text in texts:
            shared = longest_common_subsequence(candidate, text)
            if shared:
                precision = max(precision, shared / len(candidate))
                recall = max(recall, shared / len(text))
        weight = ROUGE_BETA**2
        below = recall + weight * precision
        scores.append((1 + weight) * precision * recall / below if below else 0.0)
    return np.array(scores)


def cider(candidates: Sequence[str], references: References) -> np.ndarray:
    """CIDEr of each place, in [0, 10]: (N,) float64.

    It is what pycocoevalcap calls CIDEr, the paper's CIDEr-D without stemming. The weight of an
    n-gram is its count times log(N / max(1, d)), d the number of the N places that have it in a
    reference. The score of an order is sum(min(g, h) h) / (|g| |h|) over the weights g of the
    candidate and h of a reference, times exp(-(difference in words)² / (2 · 6²)). The score of a
    place is 10 times its mean over the orders 1 .. 4 and the references.

    So a text equal to its only reference has 10 where it has n-grams of every order that not every
    place has, and every text has 0 where N = 1. ValueError as `bleu`.
    """
    pairs = [*_tokenised(candidates, references)]
    idf = _Idf.of([texts for _, texts in pairs])
    scores = []
    for candidate, texts in pairs:
        made = idf.weigh(candidate)
        similarities = [_similarity(made, idf.weigh(text)) for text in texts]
        scores.append(CIDER_SCALE * sum(similarities) / len(texts))
    return np.array(scores)


@dataclass(frozen=True)
class _Weighted:
    """A text as CIDEr sees it: of each order the weights of its n-grams, and their norm."""

    words: int
    weights: list[dict[Gram, float]]
    norms: list[float]


@dataclass(frozen=True)
class _Idf:
    """How rare each n-gram is among the references of N places."""

    absent: float  # log N: of an n-gram that no reference has
    known: dict[Gram, float]

    @classmethod
    def of(cls, references: Sequence[Sequence[Words]]) -> "_Idf":
        places: Counter[Gram] = Counter()
        for texts in references:
            held: set[Gram] = set()
            for text in texts:
                for n in ORDERS:
                    held.update(ngrams(text, n))
            places.update(held)
        count = len(references)
        known = {gram: math.log(count / number) for gram, number in places.items()}
        return cls(math.log(count), known)

    def weigh(self, words: Words) -> _Weighted:
        weights = []
        for n in ORDERS:
            counts = ngrams(words, n)
            weights.append({g: c * self.known.get(g, self.absent) for g, c in counts.items()})
        return _Weighted(len(words), weights, [math.hypot(*order.values()) for order in weights])


def _similarity(candidate: _Weighted, reference: _Weighted) -> float:
    """CIDEr of a candidate and one reference in [0, 1]."""
    total = 0.0
    for order in range(len(ORDERS)):
        norms = candidate.norms[order] * reference.norms[order]
        if norms:
            theirs = reference.weights[order]
            shared = [
                min(weight, theirs[gram]) * theirs[gram]
                for gram, weight in candidate.weights[order].items()
                if gram in theirs
            ]
            total += sum(shared) / norms
    difference = candidate.words - reference.words
    return total / len(ORDERS) * math.exp(-(difference**2) / (2 * CIDER_SIGMA**2))


def _tokenised(
    candidates: Sequence[str], references: References
) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The words of the candidate and of the references of each place."""
    if isinstance(candidates, str) or isinstance(references, str):
        raise ValueError("a text where a list of texts, one for each place, is needed")
    if len(candidates) != len(references):
        raise ValueError(
            f"{len(candidates)} candidates for {len(references)} places: give one candidate for "
            "each place, in the order of the references"
        )
    if not candidates:
        raise ValueError("no captions to score: give one candidate and a reference for a place")
    for place, (candidate, texts) in enumerate(zip(candidates, references, strict=True)):
        texts = [texts] if isinstance(texts, str) else texts
        if not texts:
            raise ValueError(f"place {place} has no reference: give each place at least one text")
        yield tokenise(candidate), [tokenise(text) for text in texts]
