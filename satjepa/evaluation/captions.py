"""Forecast captions against the true ones of year t+1: one table of word and retrieval scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from satjepa.assemble import captions_file, dataset, load_text_encoders, text_folder
from satjepa.contracts import PatchKey
from satjepa.metrics.retrieval import retrieval_scores
from satjepa.metrics.words import caption_scores

if TYPE_CHECKING:
    from satjepa.config import Params

COPY = "copy of year t"
TRUTH = "truth"
DIGITS = 9  # of a cosine
EmbedTexts = Callable[[Sequence[str]], Tensor]  # n texts to their vectors (n,D)


def caption_table(
    before: Sequence[str],
    truth: Sequence[str],
    forecasts: Mapping[str, Sequence[str]],
    embed: EmbedTexts,
) -> pd.DataFrame:
    """Scores of captions forecast for N places, on all places and on the changed ones alone.

    Args:
        before, truth: the caption of year t and the true one of t+1 of each place.
        forecasts: captions of t+1 by the name of what wrote them, one for each place.
        embed: texts to vectors, such as `pooled_embedder` gives; each different text once.

    Rows, by (places, captions): `COPY`, the forecasts, `TRUTH`; first on "all" places, then on the
    "changed", where the true caption differs from that of year t. Columns: n, the places; bleu_1 ..
    bleu_4, rouge_l, cider (`satjepa.metrics.words`; the idf is that of the n true captions);
    recall_1, recall_5, median_rank (`satjepa.metrics.retrieval`): the rank, by cosine, of the true
    caption among all different true ones, which are `among`, the same for both kinds of places.
    Where nothing changed, n is 0 and the scores are NaN.

    Raises ValueError for lists of different lengths, for none, and for a forecast called `COPY` or
    `TRUTH`.
    """
    systems = _systems(before, truth, forecasts)
    gallery = sorted(set(truth))
    number = {text: i for i, text in enumerate(gallery)}
    similarity = {name: _similarity(texts, gallery, embed) for name, texts in systems.items()}
    everywhere = range(len(truth))
    changed = [i for i in everywhere if before[i] != truth[i]]
    rows = {}
    for places, chosen in (("all", [*everywhere]), ("changed", changed)):
        references = [truth[i] for i in chosen]
        targets = torch.tensor([number[text] for text in references], dtype=torch.long)
        for name, texts in systems.items():
            row: dict[str, float] = {"n": len(chosen), "among": len(gallery)}
            if chosen:
                row |= caption_scores([texts[i] for i in chosen], references)
                row |= retrieval_scores(similarity[name][chosen], targets)
            rows[places, name] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.rename_axis(index=["places", "captions"])


def _systems(
    before: Sequence[str], truth: Sequence[str], forecasts: Mapping[str, Sequence[str]]
) -> dict[str, Sequence[str]]:
    """The captions of each row of the table."""
    if taken := {COPY, TRUTH} & set(forecasts):
        raise ValueError(f"a forecast is called {taken.pop()!r}, as a row of the table is")
    systems = {COPY: before, **forecasts, TRUTH: truth}
    for name, texts in systems.items():
        if len(texts) != len(truth):
            raise ValueError(
                f"{name}: {len(texts)} captions for {len(truth)} true ones: give one for each "
                "place, in the same order"
            )
    if not truth:
        raise ValueError("no captions to score: give those of at least one place")
    return systems


def _similarity(texts: Sequence[str], gallery: Sequence[str], embed: EmbedTexts) -> Tensor:
    """Cosine of each text with each of the gallery: (n,M) float64. Rounded, as equal vectors must
    tie, wherever in a product they stand.
    """
    different = sorted(set(texts))
    row = {text: i for i, text in enumerate(different)}
    queries = F.normalize(embed(different).double(), dim=-1)
    items = F.normalize(embed(gallery).double(), dim=-1)
    cosines = (queries @ items.T).round(decimals=DIGITS)
    return cosines[[row[text] for text in texts]]


def semantic_pairs(
    params: Params, part: str = "test", preset: str | None = None
) -> tuple[list[str], list[str]]:
    """The semantic captions of t and of t+1 of every sample of a part of a preset (the first by
    default), in the order of `satjepa.assemble.dataset`. ValueError names an image without one.
    """
    from satjepa.captions.table import lookup

    c = params.captions
    written = lookup(captions_file(params), c.captioner, c.prompt_version)
    data = dataset(params, part, preset, text=False, emb=False)
    before = []
    after = []
    for index in range(len(data)):
        m = data.meta(index)
        for year, texts in ((m["year"], before), (m["year"] + 1, after)):
            key = PatchKey(m["preset"], m["region"], year, m["x"], m["y"])
            if key not in written:
                raise ValueError(f"no caption of {tuple(key)}: run the caption stage again")
            texts.append(written[key].semantic)
    return before, after


def pooled_embedder(params: Params) -> EmbedTexts:
    """Texts to both CLIPs' pooled vectors (n,P) float32, from the store of the embeddings stage,
    or by the backbone's encoders, rounded as in the store, where it lacks a text.
    """
    from satjepa.captions.store import TextStore

    store = TextStore.open(text_folder(params))

    def embed(texts: Sequence[str]) -> Tensor:
        lacking = [text for text in texts if text not in store.numbers]
        made = {}
        if lacking:
            encoded = load_text_encoders(params).encode(lacking, params.captions.max_length)
            for text, (_, pooled) in zip(lacking, encoded, strict=True):
                made[text] = pooled.bfloat16().cpu()
        rows = [made[text] if text in made else store[text][1] for text in texts]
        return torch.stack(rows).float()

    return embed
