"""What the steps of a run say of themselves, kept on the device until a line of the log is due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from satjepa.training.run import Run


@dataclass(frozen=True)
class _Reading:
    """Of one step: its named scalars, then noise levels and flow losses of its samples, (K,) in a
    row.
    """

    step: int
    rate: float
    names: list[str]
    values: Tensor
    metas: list[dict[str, Any]]


class Readings:
    """Values of the steps since they were last told: one transfer from the device for all of
    them.

    patient: keep them until `tell` is called, so that no step waits for the device; otherwise each
    step is told at once, which costs nothing on the CPU.
    """

    def __init__(self, run: Run, patient: bool) -> None:
        self.run = run
        self.patient = patient
        self.kept: list[_Reading] = []

    def add(
        self, step: int, rate: float, parts: dict[str, Tensor], sigma: Tensor | None,
        metas: list[dict[str, Any]],
    ) -> Tensor | None:  # fmt: skip
        """Keep the values of a step (from 0); returns whether all are finite, () bool on the
        device, or None where they were told: then they are.

        parts: scalars, and "flow.each" (B,) of the samples where `sigma` (B,) is given (or
        "flow.sigma", if the model says another).
        """
        scalars = {name: part.float() for name, part in parts.items() if part.ndim == 0}
        rows = [torch.stack([*scalars.values()])]
        if sigma is not None:
            rows += [parts.get("flow.sigma", sigma).float(), parts["flow.each"].float()]
        self.kept.append(_Reading(step, rate, list(scalars), torch.cat(rows), metas))
        if self.patient:
            return rows[0].isfinite().all()
        self.tell()
        return None

    def tell(self) -> None:
        """Bring what is kept from the device and report it; NonFiniteError names the first step
        with a value that is not finite.
        """
        if not self.kept:
            return
        kept = self.kept
        self.kept = []
        numbers = torch.cat([reading.values for reading in kept]).tolist()
        for reading in kept:
            own = numbers[: len(reading.values)]
            numbers = numbers[len(own) :]
            count = len(reading.names)
            values = dict(zip(reading.names, own[:count], strict=True))
            self.run.require_finite(values, reading.step, reading.metas)
            half = (len(own) - count) // 2
            levels = (own[count : count + half], own[count + half :])
            self.run.report.add(reading.step + 1, reading.rate, values, *levels)
