"""BLEU, ROUGE-L and CIDEr: values by hand, from the papers, and from the libraries that define
them (pycocoevalcap 1.2, nltk 3.10 and sacrebleu 2.6, which agree where two of them have a metric).
"""

import math
import random
import time

import numpy as np
import pytest
from torchmetrics.functional.text import bleu_score

from satjepa.metrics.words import (
    bleu,
    caption_scores,
    cider,
    longest_common_subsequence,
    rouge_l,
    tokenise,
)

FOREST = "Forest with farmland. Northwest forest, southeast grass. No sign of change."
TOWN = "Town with water. Northwest buildings and grass, southeast water. Change: shore east."
NTH = ["bleu_1", "bleu_2", "bleu_3", "bleu_4"]
# A corpus with several references, a repeated word, a short candidate; scores of pycocoevalcap.
CANDIDATES = [
    FOREST,
    "Town with water. Northwest buildings and grass.",
    "Farmland. Northwest pale soil, northeast pale soil, southwest pale soil.",
    "Water",
]
REFERENCES = [
    [
        "Forest with farmland and town. Northwest forest, southeast grass and buildings. "
        "Change: clearing west.",
        "Forest. Northwest forest, southeast grass. No sign of change.",
    ],
    ["Town with water. Northwest buildings and grass, southeast water. No sign of change."],
    [
        "Farmland with forest. Northwest pale soil, northeast forest, southwest grass.",
        "Farmland. No sign of change.",
    ],
    ["Water with town. Northwest water, southeast buildings."],
]
COCO_BLEU = [0.6106400611237157, 0.5580595385827509, 0.5197205660144302, 0.47829941241355767]
COCO_ROUGE = [0.91652755, 0.66407465, 0.6, 0.22021661]
COCO_CIDER = [5.22148583, 4.69357065, 1.41682621, 1.42695032]
# The corpus of nltk's documentation.
GUIDE = (
    "It is a guide to action which ensures that the military always obeys the commands of the party"
)
BOOK = "he read the book because he was interested in world history"
GUIDES = [
    "It is a guide to action that ensures that the military will forever heed Party commands",
    "It is the guiding principle which guarantees the military forces always being under the "
    "command of the Party",
    "It is the practical guide for the army always to heed the directions of the party",
]
BOOKS = ["he was interested in world history because he read the book"]


def random_texts(count: int, words: int) -> list[str]:
    """Texts of `words` words out of thirty, drawn at random."""
    draw = random.Random(words)
    known = [f"w{i}" for i in range(30)]
    return [" ".join(draw.choices(known, k=words)) for _ in range(count)]


def test_words_are_lower_case_without_punctuation():
    assert tokenise("Change: clearing west, dry trees.") == ["change", "clearing", "west", "dry",
                                                             "trees"]  # fmt: skip
    assert tokenise("A well-kept farm’s 1,000.5 m (40%)") == ["a", "well-kept", "farm’s",
                                                              "1,000.5", "m", "40"]  # fmt: skip
    assert tokenise("West.East 3. 4") == ["west", "east", "3", "4"]
    assert tokenise(" .") == []


def test_the_scores_are_those_of_the_coco_evaluation():
    scores = bleu(CANDIDATES, REFERENCES)
    assert [scores[name] for name in NTH] == pytest.approx(COCO_BLEU, abs=1e-9)
    assert rouge_l(CANDIDATES, REFERENCES) == pytest.approx(COCO_ROUGE, abs=1e-8)
    assert cider(CANDIDATES, REFERENCES) == pytest.approx(COCO_CIDER, abs=1e-8)
    every = caption_scores(CANDIDATES, REFERENCES)
    assert list(every) == [*NTH, "rouge_l", "cider"]
    means = (np.mean(COCO_ROUGE), np.mean(COCO_CIDER))
    assert (every["rouge_l"], every["cider"]) == pytest.approx(means, abs=1e-8)


def test_bleu_is_that_of_nltk_and_sacrebleu():
    scores = bleu([GUIDE, BOOK], [GUIDES, BOOKS])
    known = [0.9655172413793104, 0.8242803277698696, 0.7069430098960677, 0.5920778868801042]
    assert [scores[name] for name in NTH] == pytest.approx(known, abs=1e-12)


def test_bleu_is_that_of_torchmetrics():
    truths = random_texts(50, 12)
    made = [f"{text} {other}" for text, other in zip(truths, random_texts(50, 3), strict=True)]
    for candidates, references in ((made, truths), (truths, made)):
        scores = bleu(candidates, references)
        lists = [[text] for text in references]
        theirs = [float(bleu_score(candidates, lists, n)) for n in (1, 2, 3, 4)]
        assert [scores[name] for name in NTH] == pytest.approx(theirs, rel=1e-5)
        assert 0.1 < scores["bleu_4"] < 0.9


def test_bleu_counts_a_word_as_often_as_one_reference_has_it():
    """The example of the paper: 2 / 7."""
    references = [["the cat is on the mat", "there is a cat on the mat"]]
    scores = bleu(["the the the the the the the"], references)
    assert [scores[name] for name in NTH] == pytest.approx([2 / 7, 0, 0, 0])


def test_bleu_is_of_the_corpus_not_a_mean_of_places():
    scores = bleu(["a b", "a b c d e f"], ["a b", "x x x x x f"])
    assert scores["bleu_1"] == pytest.approx(3 / 8)  # the mean of the places is 7 / 12
    assert scores["bleu_2"] == pytest.approx(math.sqrt(3 / 8 * 1 / 6))


def test_bleu_is_less_for_fewer_words_than_the_closest_reference():
    penalty = math.exp(1 - 4 / 2)
    assert bleu(["a b"], ["a b c d"])["bleu_2"] == pytest.approx(penalty)
    # of three and one words, as close to two, the shorter one counts
    assert bleu(["a b"], [["a b c", "a"]])["bleu_1"] == pytest.approx(1)
    assert bleu(["a b"], [["a b c", "a b c d"]])["bleu_1"] == pytest.approx(math.exp(1 - 3 / 2))
    assert bleu(["a b c d"], ["a b"])["bleu_1"] == pytest.approx(1 / 2)  # precision sees to this


@pytest.mark.parametrize(
    "candidate, reference, value",
    [
        # Lin 2004
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        # precision 1 and recall 1/2, and the other way round: recall counts for more
        ("a b", "a b c d", 2.44 * 0.5 / (0.5 + 1.44)),
        ("a b c d", "a b", 2.44 * 0.5 / (1 + 1.44 * 0.5)),
        ("c a d b", "a x b", 2.44 * 1 / 2 * 2 / 3 / (2 / 3 + 1.44 / 2)),
        ("x", "a b", 0),
    ],
)
def test_rouge_l_is_of_the_longest_common_subsequence(
    candidate: str, reference: str, value: float
) -> None:
    assert rouge_l([candidate], [reference]) == pytest.approx([value])


def test_rouge_l_takes_the_best_precision_and_the_best_recall():
    """Precision 1 from the one reference, recall 1 from the other."""
    assert rouge_l(["a b c d"], [["a b c d e f", "a"]]) == pytest.approx([1])


def test_the_longest_common_subsequence_by_bits_is_the_one_by_the_table():
    for a, b in zip(random_texts(40, 70), random_texts(40, 90), strict=True):
        first = a.split()
        second = b.split()
        table = np.zeros((len(first) + 1, len(second) + 1), int)
        for i, word in enumerate(first):
            for j, other in enumerate(second):
                longer = table[i, j] + 1
                table[i + 1, j + 1] = (
                    longer if word == other else max(table[i, j + 1], table[i + 1, j])
                )
        assert longest_common_subsequence(first, second) == table[-1, -1] > 5
    assert longest_common_subsequence([], ["a"]) == longest_common_subsequence(["a"], []) == 0


def test_cider_by_hand():
    """Three places. "a" is in two references (idf log 3/2), "b" and "c" in one, "a b" in one, and
    "b a" in none (each log 3).
    """
    rare = math.log(3)
    common = math.log(3 / 2)
    unigrams = (min(common, common) * common + rare * rare) / math.hypot(rare, common) ** 2
    scores = cider(["b a", "c", "x"], ["a b", "a", "c"])
    assert unigrams == 1
    assert scores == pytest.approx([10 / 4 * unigrams, 0, 0])
    # an order with one word more: cosine times the penalty for the length, the order of two absent
    cosine = common * common / (math.hypot(common, rare) * common)
    penalty = math.exp(-1 / 72)
    assert cider(["a b", "c", "x"], ["a", "a b", "c"])[0] == pytest.approx(
        10 / 4 * cosine * penalty
    )


def test_cider_clips_what_is_repeated_and_ignores_what_every_place_has():
    rare = math.log(2)
    # min(2, 1) * 1 / (2 * 1) for the orders 1; the order 2 ("a a") has no match
    assert cider(["a a", "b"], ["a", "b"])[0] == pytest.approx(
        10 / 4 * (rare * rare) / (2 * rare * rare) * math.exp(-1 / 72)
    )
    assert cider(["the", "b"], ["the b", "the c"])[0] == 0


def test_equal_texts_have_the_best_scores():
    texts = [FOREST, TOWN]
    perfect = dict.fromkeys([*NTH, "rouge_l"], 1.0) | {"cider": 10.0}
    assert caption_scores(texts, texts) == pytest.approx(perfect)
    assert caption_scores(texts, [text.upper() for text in texts]) == pytest.approx(perfect)
    short = caption_scores(["water east", "forest"], ["water east", "forest"])  # no three words
    assert [short[name] for name in NTH] == pytest.approx([1, 1, 0, 0])
    assert short["cider"] == pytest.approx((10 * 2 / 4 + 10 * 1 / 4) / 2)


def test_a_corpus_of_one_place_has_no_idf():
    scores = caption_scores([FOREST], [FOREST])
    assert scores == pytest.approx(dict.fromkeys([*NTH, "rouge_l"], 1.0) | {"cider": 0.0})


def test_nothing_said_is_worth_nothing():
    nothing = dict.fromkeys([*NTH, "rouge_l", "cider"], 0.0)
    assert caption_scores(["", " ."], [FOREST, TOWN]) == nothing
    assert caption_scores([FOREST, TOWN], ["", ""]) == nothing
    assert caption_scores(["", ""], ["", ""]) == nothing
    half = caption_scores(["", TOWN], [FOREST, TOWN])
    words = len(tokenise(FOREST)), len(tokenise(TOWN))
    assert half["bleu_4"] == pytest.approx(math.exp(1 - sum(words) / words[1]))
    assert (half["rouge_l"], half["cider"]) == pytest.approx((0.5, 5))


@pytest.mark.parametrize("score", [bleu, rouge_l, cider, caption_scores])
@pytest.mark.parametrize(
    "candidates, references, message",
    [
        ([FOREST], [FOREST, TOWN], "1 candidates for 2 places"),
        ([], [], "no captions to score"),
        ([FOREST, TOWN], [[FOREST], []], "place 1 has no reference"),
        (FOREST, [FOREST], "a list of texts"),
        ([FOREST], FOREST, "a list of texts"),
    ],
)
def test_lists_that_do_not_fit_are_refused(score, candidates, references, message) -> None:
    with pytest.raises(ValueError, match=message):
        score(candidates, references)


def test_two_thousand_captions_are_scored_quickly():
    truths = random_texts(2000, 25)
    made = [*truths[1000:], *truths[:1000]]
    start = time.process_time()
    caption_scores(made, truths)
    assert time.process_time() - start < 2
