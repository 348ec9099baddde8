"""satjepa: forecasts next year's Sentinel-2 image of a place from its past.

    import satjepa

    model = satjepa.load()
    forecast = model.forecast("s2_2020.tif", "s2_2021.tif", "s2_2022.tif")
    forecast.save("s2_2023.tif")

`load` is that of `satjepa.forecast.load`. The calls of the published model card can be imported
from here too: `load_model`, `load_and_resize_tif`, `predict_next_frame`, `CaptionForecaster`,
`encode_caption_batch` (see `satjepa.published.card`).
"""

from typing import Any

__version__ = "0.1.0"
_CALLS = {
    "load": "satjepa.forecast.load",
    "load_model": "satjepa.published.card",
    "load_and_resize_tif": "satjepa.published.card",
    "predict_next_frame": "satjepa.published.card",
    "CaptionForecaster": "satjepa.published.card",
    "encode_caption_batch": "satjepa.published.card",
}


def __getattr__(name: str) -> Any:
    """Import a call when it is asked for, so that `import satjepa` costs nothing."""
    if name not in _CALLS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_CALLS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_CALLS])
