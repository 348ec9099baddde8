"""What comes of asking a captioner: captions and what is known of how they were made, or why there
are none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from satjepa.contracts import Captions, PatchKey

Picture = tuple[np.ndarray, np.ndarray | None]  # rgb (3,H,W) float in [0,1], valid (H,W) bool
TRIES = 2  # of an image by itself, after its batch has failed
GIVE_UP = 32  # images that fail one after the other: then it is not the images
SHOWN = 3  # failures in an error; the others are counted


class Written(NamedTuple):
    """Three captions of an image and the provenance of a row, by column (`table.PROVENANCE`)."""

    captions: Captions
    about: dict[str, str]


class Failed(NamedTuple):
    """No captions of an image, and why."""

    why: str


Outcome = Written | Failed
BatchCaptioner = Callable[[Sequence[Picture]], list[Outcome]]


class CaptionsFailed(RuntimeError):
    """Images without captions after all others have theirs; the message counts and shows them."""

    def __init__(self, failures: list[tuple[PatchKey, str]], added: int, gave_up: bool) -> None:
        listed = "; ".join(f"{'/'.join(map(str, key))}: {why}" for key, why in failures[:SHOWN])
        more = f" and {len(failures) - SHOWN} more" if len(failures) > SHOWN else ""
        end = f"Given up after {GIVE_UP} in a row. " if gave_up else ""
        super().__init__(
            f"images without captions: {len(failures)}, each tried again by itself ({listed}"
            f"{more}). {end}The {added} captions added are kept: run the same again for the rest"
        )
        self.failures = failures


def attempt(captioner: BatchCaptioner, pictures: Sequence[Picture]) -> list[Outcome]:
    """The outcome of each picture: of all at once; those that fail, alone or with all the others,
    of one at a time, each tried twice.
    """
    outcomes = _try(captioner, pictures)
    if isinstance(outcomes, Failed):
        outcomes = [outcomes] * len(pictures)
    return [
        _alone(captioner, picture) if isinstance(outcome, Failed) else outcome
        for picture, outcome in zip(pictures, outcomes, strict=True)
    ]


def _alone(captioner: BatchCaptioner, picture: Picture) -> Outcome:
    outcome: Outcome = Failed("not tried")
    for _ in range(TRIES):
        outcomes = _try(captioner, [picture])
        outcome = outcomes if isinstance(outcomes, Failed) else outcomes[0]
        if isinstance(outcome, Written):
            break
    return outcome


def _try(captioner: BatchCaptioner, pictures: Sequence[Picture]) -> list[Outcome] | Failed:
    """The exception itself is dropped here: it would hold the memory of the failed batch."""
    try:
        return captioner(pictures)
    except Exception as error:
        return Failed(" ".join(f"{type(error).__name__}: {error}".split()))
