"""What words are worth, over the seeds of a model: mean and standard deviation of every number.

    python benchmarks/words.py runs/satjepa-0/model [runs/satjepa-1/model ...] [--places 64]
                               [--samples 8]

On test regions of the first preset, of models with a caption writer (`python -m
satjepa.pipeline.train_writer RUN`):

    heard      forecasts led by the forecast caption ("as it is"), by none, by one kind alone, by
               the true one of t+1, by that of year t or of another place, and by captions that the
               writer draws, one for each member: PSNR of the mean, on changed pixels, CRPS; what
               the captions by rule of the members have in common with the true one (`shown`); and
               the difference of each to "no captions" of the same model
    agreement  whether a member's picture says what its own sentence says
               (`satjepa.evaluation.led.agreement`)
    words      the likeliest caption of every place against the copy of that of year t and the true
               one of another place: BLEU, ROUGE-L, CIDEr, retrieval, on all places and on changed
               ones (`satjepa.evaluation.captions.caption_table`)

Several runs are those of one model trained with several seeds, `python -m
satjepa.pipeline.run_notebook notebooks/05_train.ipynb OUT -p arm satjepa -p seed 1 -p run_dir
runs/satjepa-1` for one.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from satjepa.assemble import load_led, load_model, sample_batch
from satjepa.captions.grammar import claims
from satjepa.captions.rules import caption
from satjepa.config import load_params
from satjepa.evaluation import captions, led
from satjepa.evaluation.probes import heard, listen
from satjepa.metrics.words import caption_scores

SILENCE = "no captions"
Tables = dict[str, pd.DataFrame]


class Noting:
    """A model that keeps what it has drawn."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.drawn: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def forecast(self, *args: Any) -> Tensor:
        """As the model's."""
        self.drawn.append(self.model.forecast(*args))
        return self.drawn[-1]


def shown(members: Tensor, truth: Tensor, valid: Tensor) -> dict[str, float]:
    """What forecasts (S,B,3,H,W) show, in words: the captions by rule of all members against those
    of the truth (B,3,H,W), both of the pixels `valid` (B,1,H,W).

    claims: mean overlap of what the two claim of quarters (`satjepa.evaluation.led.overlap`).
    bleu_4, cider: `satjepa.metrics.words`, the idf that of the true captions.
    """
    masks = valid[:, 0].numpy()

    def said(images: Tensor) -> list[str]:
        pairs = zip(images.numpy(), masks, strict=True)
        return [caption(image, mask, "display").semantic for image, mask in pairs]

    pictures = [text for member in members for text in said(member)]
    true = said(truth) * len(members)
    common = [led.overlap(claims(a), claims(b)) for a, b in zip(pictures, true, strict=True)]
    scores = caption_scores(pictures, true)
    return {"claims": np.nanmean(common)} | {name: scores[name] for name in ("bleu_4", "cider")}


def measured(checkpoint: str, args: argparse.Namespace) -> Tables:
    """The three tables of one model."""
    params = load_params()
    model = Noting(load_model(checkpoint))
    writing = load_led(model.model, model.folder)
    table = listen(model, params, args.places, args.samples)[["psnr", "changed", "crps"]]
    batch = sample_batch(params, args.places)
    members, sentences = writing.with_sentences(batch, args.samples, params.seed)
    table.loc["drawn by the writer"] = heard(members, batch, params.eval.change_threshold)
    valid = batch["valid_t"] & batch["valid_tp1"]
    words = [shown(drawn, batch["rgb_tp1"], valid) for drawn in (*model.drawn, members)]
    table = table.join(pd.DataFrame(words, table.index))
    gains = (table - table.loc[SILENCE]).add_suffix(f" - {SILENCE}")
    before, truth = captions.semantic_pairs(params)
    half = len(truth) // 2
    written = led.written(writing, params)
    others = {"true one of another place": [*truth[half:], *truth[:half]], "written": written}
    return {
        "heard": table.join(gains),
        "agreement": pd.Series(led.agreement(members, sentences)).to_frame("value"),
        "words": captions.caption_table(before, truth, others, captions.pooled_embedder(params)),
    }


def over_seeds(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean and standard deviation (of the sample) of equal tables, side by side."""
    stacked = pd.concat(tables, keys=range(len(tables)), names=["run"])
    levels = list(range(1, stacked.index.nlevels))
    grouped = stacked.groupby(level=levels, sort=False)
    both = pd.concat({"mean": grouped.mean(), "sd": grouped.std()}, axis=1)
    return both.swaplevel(axis=1)[[(name, kind) for name in tables[0] for kind in ("mean", "sd")]]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--places", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    args = parser.parse_args()
    found = [measured(checkpoint, args) for checkpoint in args.checkpoints]
    for name in found[0]:
        print(f"\n{name}; runs: {len(found)}")
        print(over_seeds([tables[name] for tables in found]).round(4).to_string())


if __name__ == "__main__":
    main()
