"""What a training run keeps in its folder, and how it is found again: the same for joint training
and baselines.

    <folder>/resume/    checkpoint of an unfinished run; removed at the end
    <folder>/model/     checkpoint of the finished run

and beside them what `satjepa.training.log` writes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from satjepa.training import checkpoint, provenance
from satjepa.training.checkpoint import Checkpoint, CheckpointError
from satjepa.training.log import Report, git_revision
from satjepa.training.state import position

Tensors = dict[str, Tensor]


class NonFiniteError(RuntimeError):
    """Loss or gradient is not a number; the message names step, samples, parts and the last good
    checkpoint.
    """


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop and has saved its state; the message says how far it got."""


class Run:
    """The checkpoints of a run: what is finished, what goes on, what is saved and when nothing more
    may be.

    folder: of the run. header: of its checkpoints, from one of the two `make_header`. samples: size
    of the dataset. report: told why the run stands where it stands; its lines are part of an
    unfinished checkpoint.
    """

    def __init__(self, folder: Path, header: dict[str, Any], samples: int, report: Report) -> None:
        self.header = header
        self.samples = samples
        self.report = report
        self.resume = folder / "resume"
        self.model = folder / "model"

    def is_finished(self) -> bool:
        """Is <folder>/model the end of this very run?"""
        if not checkpoint.exists(self.model):
            return False
        found = checkpoint.read_header(self.model)
        if provenance.differences(found, self.header):
            return False
        self._tell_of_other_code(self.model, found)
        print(f"{self.model.parent} has been trained to its end before: nothing to train")
        return True

    def unfinished(self, resume: str | Path = "auto") -> Checkpoint | None:
        """The checkpoint to go on from, the report's lines with it; None to begin.

        resume: "auto" is <folder>/resume, if it is there, "no" begins, and a path must be a
        checkpoint. Raises CheckpointError where that is missing, of another run or of other
        samples, or has an end.
        """
        folder = self.resume if resume == "auto" else Path(resume)
        if resume == "no" or (resume == "auto" and not checkpoint.exists(folder)):
            return None
        found = checkpoint.load(folder, with_optimizer=True)
        provenance.require_same(found, self.header)
        if not found.optimizer:
            raise CheckpointError(f"{folder} is the end of a run: nothing is left to train")
        if (was := found.state["sampler"]["samples"]) != self.samples:
            raise CheckpointError(
                f"{folder} was trained on {was} samples, there are {self.samples} now: begin anew"
            )
        self._tell_of_other_code(folder, found.header)
        self.report.restore(found.state["log"])
        return found

    def _tell_of_other_code(self, folder: Path, found: dict[str, Any]) -> None:
        if found["code"] != self.header["code"]:
            print(f"note: the code of model or training has changed since {folder} was saved")

    def save(
        self, step: int, reason: str, tensors: Tensors, optimizer: Tensors, **more: Any
    ) -> None:
        """Save what the run goes on from after `step` steps, `more` of its state, and say why it
        stands there.
        """
        sampler = position(step, self.report.batch, self.samples)
        state = {"step": step, "sampler": sampler, "log": self.report.state()} | more
        checkpoint.save(self.resume, tensors, self.header, state, optimizer)
        self.report.write_run(reason, step)

    def finish(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        """Save the finished model, and remove what the run would have gone on from."""
        checkpoint.save(self.model, tensors, self.header, state, {})
        checkpoint.remove(self.resume)
        self.report.write_run("finished", step)

    def require_finite(
        self, values: dict[str, float], step: int, metas: list[dict[str, Any]]
    ) -> None:
        """NonFiniteError unless all values of a step are finite; metas: of the samples of its
        batch.
        """
        if odd := ", ".join(name for name, value in values.items() if not math.isfinite(value)):
            self.report.write_run(f"not finite: {odd}", step)
            places = ", ".join("{preset}/{region}/{year}/{x}/{y}".format(**meta) for meta in metas)
            good = self.resume if checkpoint.exists(self.resume) else "none yet"
            raise NonFiniteError(
                f"step {step + 1}: {odd} not finite; samples {places}; last good checkpoint: {good}"
            )


def facts(device: torch.device, samples: int, trained: list[nn.Parameter]) -> dict[str, Any]:
    """What run.json says of a run beside its progress: machine, code, and how much is trained on
    how much.
    """
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "git": git_revision(),
        "samples": samples,
        "trained_parameters": sum(p.numel() for p in trained),
    }
