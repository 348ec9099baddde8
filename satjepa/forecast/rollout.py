"""Several years ahead: each member of the ensemble goes on from its own forecast.

year 1: forecast(batch) -> members 1 .. S
year k: member m becomes rgb_t, its rgb_t the newest of its history, words are written from its own
image -> forecast -> member m

A member is one possible story of the place: its second year follows from its first, and the
ensemble is that of all stories. (To go on from the mean of the members, as
`satjepa inference --multi_step` does, starts each year from a blurred image such as no year looks
like, and forgets what was open.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from satjepa.captions.embeddings import Embed
from satjepa.captions.rules import caption
from satjepa.contracts import Batch, Forecaster
from satjepa.training.state import seed_of

# images (B,3,H,W) in [0, 1] and their masks (B,1,H,W) -> text_t of a `Batch`
Describe = Callable[[Tensor, Tensor], dict[str, Tensor]]
KNOWN = 0.5  # an earlier year counts where at least this share of it is valid, as in `PairDataset`


def rollout(
    forecaster: Forecaster,
    batch: Batch,
    samples: int = 8,
    seed: int = 0,
    years: int = 1,
    captions: Describe | None = None,
) -> Tensor:
    """Forecast `years` years of each patch: (years,samples,B,3,H,W) float32 in [0, 1] on the CPU.

    Args:
        forecaster: of one year; year 1 is its `forecast(batch, samples, seed)` to the bit.
        batch: what is known of year t, as for one year. Captions that someone gives (`text_given`)
            say what year t+1 shows, not the years after: they lead the first year, and later ones
            follow from the images that they led to.
        captions: writes and embeds those of a member's image (`by_rule`); None for a forecaster
            that reads none.

    A member's later years depend on (seed, number of the member, year, place) and its own past
    alone: not on the other members nor patches. Each is asked for alone, all patches at once, with
    a seed of its own (`member_seed`): beside the result no more is in memory than for one member,
    and the forecaster always sees batches of one size. Pixels invalid in year t stay so.

    ValueError: no year or no member; captions=None where the batch has captions.
    """
    if years < 1 or samples < 1:
        raise ValueError(f"{years} years of {samples} members: at least one of each")
    if years > 1 and captions is None and "text_t" in batch:
        raise ValueError(
            "the batch has captions of year t, and later years need captions of their own: give "
            "captions=by_rule(embed)"
        )
    first = forecaster.forecast(batch, samples, seed)
    if years == 1:
        return first[None]
    stories = first.new_empty(years, *first.shape)
    stories[0] = first
    for member in range(samples):
        known = batch
        for ahead in range(1, years):
            known = year_later(known, stories[ahead - 1, member], captions)
            own = member_seed(seed, member, ahead)
            stories[ahead, member] = forecaster.forecast(known, 1, own)[0]
    return stories


def year_later(batch: Batch, image: Tensor, captions: Describe | None = None) -> Batch:
    """The batch of one year on, in which `image` (B,3,H,W) in [0, 1] is that of year t.

    rgb_t becomes the newest of the earlier years, of which there are as many as before. The mask of
    year t stays, and what it hides is black, as in any batch. All else that a batch may hold is of
    the old year and is not in the new one: truth, latents, captions given.
    """
    valid = batch["valid_t"]
    enough = valid.float().mean((1, 2, 3)) >= KNOWN  # (B,)
    newest = batch["rgb_t"] * enough[:, None, None, None]
    count = batch["history"].shape[1]
    later: dict[str, Any] = {
        "rgb_t": image.to(valid.device) * valid,
        "valid_t": valid,
        "history": torch.cat([newest[:, None], batch["history"]], 1)[:, :count],
        "history_valid": torch.cat([enough[:, None], batch["history_valid"]], 1)[:, :count],
        "meta": [place | {"year": place["year"] + 1} for place in batch["meta"]],
    }
    if captions is not None:
        later["text_t"] = captions(later["rgb_t"], valid)
    return cast(Batch, later)


def member_seed(seed: int, member: int, ahead: int) -> int:
    """The seed of one member (0 is the first) `ahead` >= 1 years after its first forecast.

    The same for all places: noise that hangs together from place to place does so in every year.
    """
    return seed_of("rollout", seed, member, ahead)


def by_rule(embed: Embed) -> Describe:
    """What writes the captions of images by rule (`satjepa.captions.rules`) and embeds them."""

    def describe(images: Tensor, valid: Tensor) -> dict[str, Tensor]:
        pairs = zip(images.cpu().numpy(), valid[:, 0].cpu().numpy(), strict=True)
        return embed([caption(image, mask, encoding="display") for image, mask in pairs])

    return describe
