"""What the wings share: a batch, a forecaster, the three captions and their order, the key of an
image.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypedDict

from torch import Tensor


class Batch(TypedDict, total=False):
    """B samples, as `satjepa.data.pairs.collate` makes them: patches of H x W pixels from year t to
    year t+1.

    Always there are the images, their masks, the history and `meta`; truth, captions and latents
    where asked for.
    """

    rgb_t: Tensor  # (B,3,H,W) float32 in [0, 1]; 0 where invalid
    rgb_tp1: Tensor  # likewise, of year t+1
    valid_t: Tensor  # (B,1,H,W) bool
    valid_tp1: Tensor
    emb_tp1: Tensor  # (B,64,H,W) float32 of length 1: AlphaEarth(t+1), 0 where masked
    emb_valid: Tensor  # (B,1,H,W) bool
    history: Tensor  # (B,T,3,H,W): years t-1, t-2, ...; all 0 where absent
    history_valid: Tensor  # (B,T) bool
    oracle_mean: Tensor  # (B,3,H,W): expected image of t+1, known in the demo world only
    oracle_sample: Tensor  # (B,3,H,W): one draw of it
    process: Tensor  # (B,1,H,W) uint8: what changed the pixel
    # hidden (B,3,L,D), mask (B,3,L) bool, pooled (B,3,P); the 3 as in `Captions`
    text_t: dict[str, Tensor]
    text_tp1: dict[str, Tensor]
    text_given: dict[str, Tensor]  # captions of t+1 that someone gives to lead a forecast by
    is_given: Tensor  # (B,3) bool: which of the three are given
    hidden_quarters: Tensor  # (B,4) bool: nw, ne, sw, se, whose tokens a forecast does without
    latent_tp1: Tensor  # (B,C,h,w) of RGB(t+1)
    meta: list[dict[str, Any]]  # B x {region, year (of t), x, y, preset, aug}


class Forecaster(Protocol):
    """Anything that forecasts year t+1 of a batch.

    A forecaster that was trained also carries `trained_on`, the `Split` of its checkpoint, and
    evaluation refuses every sample of it.
    """

    def forecast(self, batch: Batch, samples: int = 1, seed: int = 0) -> Tensor:
        """`samples` forecasts of each patch: (samples, B, 3, H, W) float32 in [0, 1] on the CPU.

        A forecast depends on (seed, sample number, place) alone, not on the size or order of the
        batch.
        """
        ...


class Captions(NamedTuple):
    """The three texts of one image, in the order used everywhere."""

    informative: str
    geometric: str
    semantic: str


CAPTION_KINDS = Captions._fields
SEMANTIC = CAPTION_KINDS.index("semantic")  # the one that is forecast


class PatchKey(NamedTuple):
    """Which image: the window of one region and year whose upper left corner is (x, y) pixels from
    the region's.
    """

    preset: str
    region: str
    year: int
    x: int
    y: int
