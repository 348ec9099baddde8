"""The averaged weights of a finished run alone: what a forecast needs, and a model is shipped as.

    <out>/model.safetensors    each trained tensor, averaged, under its own name; the run's header,
                               which says "weights": "averaged"
    <out>/state.json           step, sha256 of the file beside it

Left out: the weights as the last step left them, the target encoder, the fixed tables (they are
computed from the backbone when the model is built), the optimiser.
"""

from __future__ import annotations

from pathlib import Path

from satjepa.models.averages import AVERAGE
from satjepa.training import checkpoint
from satjepa.training.checkpoint import AVERAGED, Checkpoint, CheckpointError


def export(run: str | Path, out: str | Path) -> Checkpoint:
    """Write the averaged weights of the run in folder `run`, float32, to the folder `out`.

    `satjepa.training.checkpoint.load` reads it, and a forecast by it is that of the run. Equal runs
    give equal bytes. Raises CheckpointError where `<run>/model` is no checkpoint or holds no
    averages, as one that was exported or imported.
    """
    found = checkpoint.load(Path(run) / "model")
    averages = {
        name.removeprefix(AVERAGE): tensor
        for name, tensor in found.tensors.items()
        if name.startswith(AVERAGE)
    }
    if not averages:
        raise CheckpointError(
            f"{found.folder} holds no averaged weights ({len(found.tensors)} tensors, none named "
            f"{AVERAGE}...): export the folder of a run that `satjepa train` has finished"
        )
    header = found.header | {"weights": AVERAGED}
    checkpoint.save(out, averages, header, {"step": found.state["step"]}, None)
    return checkpoint.load(out)
