"""The rank of the truth among all, by hand; ties by drawing their order many times."""

import pytest
import torch

from satjepa.metrics.retrieval import expected_ranks, retrieval_scores

SIMILARITY = torch.tensor(
    [
        [0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6],  # the truth, 0, comes first
        [0.9, 0.8, 0.2, 0.3, 0.4, 0.5, 0.6],  # 1 comes second
        [0.9, 0.8, 0.1, 0.3, 0.4, 0.5, 0.6],  # 2 comes last
        [0.9, 0.8, 0.1, 0.3, 0.4, 0.5, 0.6],  # 0 comes first
    ]
)
TRUTH = torch.tensor([0, 1, 2, 0])


def test_ranks_by_hand():
    assert expected_ranks(SIMILARITY, TRUTH).tolist() == [1, 2, 7, 1]
    scores = retrieval_scores(SIMILARITY, TRUTH)
    assert scores == {"recall_1": 0.5, "recall_5": 0.75, "median_rank": 1.5}


def test_a_median_rank_stands_between_the_two_in_the_middle():
    assert retrieval_scores(SIMILARITY[:3], TRUTH[:3])["median_rank"] == 2


def test_what_is_alike_everywhere_is_as_good_as_chance():
    scores = retrieval_scores(torch.zeros(10, 10), torch.arange(10))
    assert scores == pytest.approx({"recall_1": 0.1, "recall_5": 0.5, "median_rank": 5.5})


def test_a_tie_is_worth_what_it_is_worth_on_average():
    g = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 5, (30, 12), generator=g).double()  # many ties
    truth = torch.randint(0, 12, (30,), generator=g)
    wanted = retrieval_scores(coarse, truth)
    drawn = []
    ranks = []
    for _ in range(3000):
        decided = coarse + 0.5 * torch.rand(30, 12, generator=g, dtype=torch.float64)
        drawn.append(retrieval_scores(decided, truth))
        ranks.append(expected_ranks(decided, truth))
    for name in ("recall_1", "recall_5"):
        mean = sum(scores[name] for scores in drawn) / len(drawn)
        assert wanted[name] == pytest.approx(mean, abs=0.01)
    assert torch.allclose(expected_ranks(coarse, truth), torch.stack(ranks).mean(0), atol=0.15)


def test_fewer_items_than_five_are_all_recalled():
    assert retrieval_scores(torch.eye(3).flip(0), torch.arange(3))["recall_5"] == 1


@pytest.mark.parametrize(
    "similarity, truth, message",
    [
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), r"\(2, 3\) and truth \(3,\)"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "at least one query"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.long), r"needed are \(N, M\)"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "truth from 0 to 3 among 3"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), "truth from -1 to 0 among 3"),
        (torch.full((2, 3), torch.nan), torch.tensor([0, 1]), "NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_refused(similarity, truth, message) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval_scores(similarity, truth)
