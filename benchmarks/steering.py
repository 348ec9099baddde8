"""Do words steer a forecast? Edits of the forecast caption, and what the forecast shows of them.

    python benchmarks/steering.py [--checkpoint assets/demo_model] [--places 200] [--edits 5]
                                  [--hide] [--guidance 1.25] [--seed 0] [--regions 8]

Held-out places of the demo world, rendered on the fly (no artifact of the pipeline is needed): of
test regions, preset strong, from the last year but one to the last. The caption of t+1 is written
by the model's writer (where it has none, it is that of year t); each edit puts a cover into one
quarter of it that it does not name there, and the place is forecast again from the same noise.

    edit         the cover asked for, looked for in its quarter
    no edit      the same caption from other noise: what chance does
    random edit  a caption that asks for another cover in another quarter

moved: the share of edits after which the cover has more of its quarter than without; gain: by how
much more of the quarter; claimed: captions by rule of the forecast that name it there; elsewhere:
mean absolute change outside the quarter, for "no edit" that of a random member.

--hide: in all pictures of an edit, also the one without it, the tokens of its quarter are hidden
from the generator, so that there the words alone say what comes.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from tqdm import tqdm

import satjepa
from satjepa.assemble import load_led
from satjepa.captions.grammar import parsed
from satjepa.data.pairs import PairDataset, collate, spread_evenly
from satjepa.demo.render import read_recipe
from satjepa.evaluation import steering
from satjepa.paths import root
from satjepa.pipeline import one_patch
from satjepa.training.writer import find_writer

YEAR = 2022  # t


def places(joint: Any, regions: int, count: int) -> list[dict[str, Any]]:
    """Batches of one place each, without captions, spread evenly over some test regions."""
    recipe = read_recipe(root() / "assets/demo/world.yaml")
    d = joint.params.data
    batches = []
    names = recipe["regions"]["test"][:regions]
    for i, name in enumerate(tqdm(names, "render")):
        cube = one_patch.rendered(recipe, name, last=YEAR + 1)
        data = PairDataset([cube], None, d.patch, d.patch, d.history)
        last = [n for n in range(len(data)) if data.meta(n)["year"] == YEAR]
        share = count * (i + 1) // len(names) - count * i // len(names)
        batches += [collate([data[last[n]]]) for n in spread_evenly(len(last), share)]
    return batches


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", default=str(root() / "assets/demo_model"))
    parser.add_argument("--places", type=int, default=200)
    parser.add_argument("--edits", type=int, default=5)
    parser.add_argument("--regions", type=int, default=8)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hide", action="store_true")
    args = parser.parse_args()
    model = satjepa.load(args.checkpoint, guidance=args.guidance)
    led = load_led(model.joint, model.folder) if find_writer(model.folder) else None
    rng = np.random.default_rng(args.seed)
    rows = []
    batches = places(model.joint, args.regions, args.places)
    for batch in tqdm(batches, "steer"):
        now = one_patch.captions_of(batch["rgb_t"][0], batch["valid_t"][0])
        batch["text_t"] = model.embed([now])
        text = now.semantic if led is None else led.write_likeliest(batch)[0]
        text = text if parsed(text) else now.semantic
        rows += steering.steer_place(
            model.joint, batch, text, model.embed, rng, args.edits, args.seed, args.hide
        )
    print(f"{len(batches)} places, {args.edits} edits each; {model.sampler}; hide: {args.hide}")
    print(steering.summary(rows).round(4).to_string())


if __name__ == "__main__":
    main()
