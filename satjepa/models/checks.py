"""Which settings of the model go together."""

from typing import Any

from torch import Tensor


def check_model(m: Any, grid: int, positions: Tensor, layout: dict[str, Tensor] | None) -> None:
    """ValueError for settings ``model`` that do not go together, or not with a layout."""
    if m.variant != "satjepa":
        raise ValueError(f"model.variant is {m.variant!r}: SatJepa is the variant 'satjepa'")
    if len(positions) != grid**2:
        raise ValueError(
            f"the layout has {len(positions)} locations, data.patch / encoder.patch is "
            f"{grid}x{grid}"
        )
    if layout is not None and m.context_merge > 1:
        raise ValueError("model.context_merge is 1 where backbone.layout gives the tokens")
    if grid % m.context_merge:
        raise ValueError(
            f"model.context_merge is {m.context_merge}: it must divide the {grid} tokens of a side"
        )
    if m.coarse_rgb and not m.use_jepa:
        raise ValueError("model.coarse_rgb is a part of the token stream: it needs model.use_jepa")
