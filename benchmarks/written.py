"""Written captions of t+1: as words, and as what leads an ensemble.

    python benchmarks/written.py [--checkpoint runs/satjepa-0/model] [--places 64] [--samples 8]
                                 [--preset strong]

On test regions, of a model with a caption writer (`python -m satjepa.pipeline.train_writer RUN`):

    the likeliest caption of every place against the copy of that of year t and the true one of
    another place: BLEU, ROUGE-L, CIDEr, retrieval, on all places and on changed ones
    (`satjepa.evaluation.captions.caption_table`), and the share that has the form of rules

    an ensemble led by drawn captions against one led by the forecast embedding, the same noise, on
    `places` patches; and whether a member's picture agrees with its own sentence
    (`satjepa.evaluation.led`)
"""

from __future__ import annotations

import argparse

import pandas as pd

from satjepa.assemble import load_led, load_model
from satjepa.captions.grammar import share_parsed
from satjepa.config import load_params
from satjepa.evaluation import captions, led
from satjepa.paths import root


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", default=str(root() / "runs/satjepa-0/model"))
    parser.add_argument("--places", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--preset")
    args = parser.parse_args()
    params = load_params()
    model = load_model(args.checkpoint)
    writing = load_led(model, model.folder)
    before, truth = captions.semantic_pairs(params, "test", args.preset)
    written = led.written(writing, params, "test", args.preset)
    half = len(truth) // 2
    forecasts = {"true one of another place": [*truth[half:], *truth[:half]], "written": written}
    table = captions.caption_table(before, truth, forecasts, captions.pooled_embedder(params))
    print(f"form of rules: {share_parsed(written):.1%} of {len(written)}")
    print(table.round(3).to_string())
    scores, agreement = led.ensembles(writing, params, args.places, args.samples, args.preset)
    print(scores.round(4).to_string())
    print(pd.Series(agreement).round(3).to_string())


if __name__ == "__main__":
    main()
