"""Is the true one found? The rank of the truth among all by similarity, with ties counted fairly.

A tie is worth what it is worth on average if its order is drawn at random: a similarity that is
the same for all of M must not score as rank 1 (nor as rank M). With a the number of the others
that are more similar than the truth and e of those exactly as similar, the expected rank is
1 + a + e / 2, and the chance to be among the first k is (k - a) / (e + 1) within [0, 1].
"""

from torch import Tensor

CUTS = (1, 5)  # k of recall@k


def retrieval_scores(similarity: Tensor, truth: Tensor) -> dict[str, float]:
    """recall_1 and recall_5, in [0, 1], and median_rank (1: the best) of N queries among M items.

    similarity: (N,M), larger is more alike. truth: (N,), the number in [0, M) of the item that each
    query must retrieve. ValueError without a query, for other shapes, a number outside, and a
    similarity that is not finite.
    """
    above, equal = _rivals(similarity, truth)
    scores = {}
    for k in CUTS:
        scores[f"recall_{k}"] = float(((k - above) / (equal + 1)).clamp(0, 1).mean())
    # quantile, as torch's median takes the lower of the two in the middle
    return scores | {"median_rank": float(expected_ranks(similarity, truth).quantile(0.5))}


def expected_ranks(similarity: Tensor, truth: Tensor) -> Tensor:
    """Expected rank of the truth of each query: (N,) float64 in [1, M]. Arguments and errors as of
    `retrieval_scores`.
    """
    above, equal = _rivals(similarity, truth)
    return 1 + above + equal / 2


def _rivals(similarity: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Others that are more similar than the truth, and others as similar: two (N,) float64."""
    if similarity.ndim != 2 or truth.shape != similarity.shape[:1] or not len(truth):
        raise ValueError(
            f"similarity {tuple(similarity.shape)} and truth {tuple(truth.shape)}: needed are "
            "(N, M) and (N,), with at least one query"
        )
    if truth.min() < 0 or truth.max() >= similarity.shape[1]:
        raise ValueError(
            f"truth from {int(truth.min())} to {int(truth.max())} among {similarity.shape[1]} "
            "items: their numbers begin with 0"
        )
    if not similarity.isfinite().all():
        raise ValueError("similarity holds NaN or infinity: look at the embeddings it is made of")
    wanted = similarity.gather(1, truth[:, None])  # (N,1)
    above = (similarity > wanted).sum(1).double()
    equal = (similarity == wanted).sum(1).double() - 1  # without the truth itself
    return above, equal
