"""satjepa: forecasts next year's Sentinel-2 image of a place from its past.

The calls of the model card are importable from here: `load_model`, `load_and_resize_tif`,
`predict_next_frame`, `CaptionForecaster`, `encode_caption_batch` (see `satjepa.published.card`).
"""

from typing import Any

__version__ = "0.1.0"
_CALLS = (
    "load_model",
    "load_and_resize_tif",
    "predict_next_frame",
    "CaptionForecaster",
    "encode_caption_batch",
)


def __getattr__(name: str) -> Any:
    """Import a call of the model card when it is asked for, so that `import satjepa` costs
    nothing.
    """
    if name not in _CALLS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("satjepa.published.card"), name)
