"""What a forecast is compared with. Every baseline is a `Forecaster`, as our model is: evaluation has one loop."""

from typing import Protocol

from torch import Tensor


class Forecaster(Protocol):
    """Anything that forecasts year t+1 of a batch.

    A forecaster that was trained also carries `trained_on`, the `Split` of its checkpoint, and evaluation refuses every
    sample of it.
    """

    def forecast(self, batch: dict, samples: int = 1, seed: int = 0) -> Tensor:
        """`samples` forecasts of each patch: (samples, B, 3, H, W) float32 in [0, 1] on the CPU.

        A forecast depends on (seed, sample number, place) alone, not on the size or order of the batch.
        """
        ...
