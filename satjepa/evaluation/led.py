"""Captions that a writer forecasts, and members that are led by them: do sentence and picture
agree?
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from satjepa.assemble import batches, dataset, sample_batch
from satjepa.captions.grammar import claims
from satjepa.captions.rules import caption
from satjepa.metrics.pixels import crps, mse, psnr, spread, spread_skill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from satjepa.captions.grammar import Claim
    from satjepa.config import Params
    from satjepa.contracts import Batch
    from satjepa.models.led import Led


def written(led: Led, params: Params, part: str = "test", preset: str | None = None) -> list[str]:
    """The likeliest semantic caption of t+1 of every sample of a part of a preset, in the order of
    `satjepa.evaluation.captions.semantic_pairs`.
    """
    data = dataset(params, part, preset, emb=False)
    texts: list[str] = []
    for batch in batches(data, params.eval.batch):
        texts += led.write_likeliest(batch)
    return texts


def seen(members: Tensor) -> list[list[str]]:
    """The semantic caption by rule of each member (S,B,3,H,W) of each place."""
    everywhere = np.ones(members.shape[-2:], bool)
    texts = []
    for member in members:
        texts.append([caption(image.numpy(), everywhere, "display").semantic for image in member])
    return texts


def overlap(one: frozenset[Claim], other: frozenset[Claim]) -> float:
    """Claims in common over claims of either, in [0, 1]; NaN where neither claims anything."""
    both = one | other
    return len(one & other) / len(both) if both else float("nan")


def agreement(members: Tensor, sentences: Sequence[Sequence[str]]) -> dict[str, float]:
    """Do the pictures (S,B,3,H,W) say what led them? Overlap of what the caption by rule of each
    member claims (quarter, cover) with what its own sentence claims, and with what those of the
    other members of its place do which claim something else.

    own, other: means over the pairs of a member and such another one. own_wins: the share of pairs
    in which the own sentence agrees better, a tie counts half. pairs: how many. elsewhere: with the
    sentence of another place (the one before it in the batch). NaN where no two sentences of a
    place differ.
    """
    pictures = [_claims(texts) for texts in seen(members)]
    stated = [_claims(texts) for texts in sentences]
    pairs: list[tuple[float, float]] = []
    elsewhere: list[float] = []
    for place in range(members.shape[1]):
        said = [texts[place] for texts in stated]
        for number, texts in enumerate(pictures):
            elsewhere.append(overlap(texts[place], stated[number][place - 1]))
            own = overlap(texts[place], said[number])
            rivals = [claimed for claimed in said if claimed != said[number]]
            pairs += [(own, overlap(texts[place], claimed)) for claimed in rivals]
    scores = np.array(pairs).reshape(-1, 2)
    wins = (scores[:, 0] > scores[:, 1]) + 0.5 * (scores[:, 0] == scores[:, 1])
    own, other = (_mean(column) for column in scores.T)
    answer = {"own": own, "other": other, "own_wins": _mean(wins), "pairs": len(pairs)}
    return answer | {"elsewhere": _mean(np.array(elsewhere))}


def _claims(texts: Sequence[str]) -> list[frozenset[Claim]]:
    return [claims(text) for text in texts]


def _mean(values: np.ndarray) -> float:
    """The mean of those that are numbers; NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def ensembles(
    led: Led, params: Params, count: int = 64, samples: int = 8, preset: str | None = None
) -> tuple[pd.DataFrame, dict[str, float]]:
    """An ensemble led by the forecast embedding against one led by sentences, on `count` test
    patches and with the same noise: a table of PSNR of the mean (dB, mean over patches), that of
    one member, CRPS, spread over error; and the `agreement` of the second.
    """
    batch = sample_batch(params, count, preset)
    members, sentences = led.with_sentences(batch, samples, params.seed)
    made = {
        "forecast embedding": led.joint.forecast(batch, samples, params.seed),
        "written, a sentence each": members,
    }
    rows = {name: _scores(drawn, batch) for name, drawn in made.items()}
    return pd.DataFrame(rows).T, agreement(members, sentences)


def _scores(members: Tensor, batch: Batch) -> dict[str, float]:
    """Scores of members (S,B,3,H,W)."""
    truth = batch["rgb_tp1"]
    valid = batch["valid_t"] & batch["valid_tp1"]
    errors = mse(members.mean(0), truth, valid)
    weights = valid.flatten(1).sum(1)
    return {
        "psnr_mean": psnr(members.mean(0), truth, valid).mean().item(),
        "psnr_one": psnr(members[0], truth, valid).mean().item(),
        "crps": crps(members, truth, valid).mean().item(),
        "spread_skill": spread_skill(spread(members, valid), errors, weights),
    }
