"""The caption writer of a finished run, trained on the run's own split and captions.

    python -m satjepa.pipeline.train_writer runs/satjepa-0

    <run>/writer.safetensors    beside the model it was trained for (`satjepa.training.writer`)

A folder of a checkpoint, such as assets/demo_model, will do, too: then the weights lie in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from satjepa.assemble import dataset, from_checkpoint, load_text_encoders, the_device, trained_on
from satjepa.config import load_params
from satjepa.training import checkpoint
from satjepa.training.writer import NAME, new_writer, save_writer, train_writer


def main(run: str | Path) -> Path:
    """Train the writer of a run, or of a checkpoint's folder, with the `writer` section of
    params.yaml; returns its file.

    Raises CheckpointError where there is no checkpoint, where it is of another split than
    artifacts/split.json, and where its model reads no captions.
    """
    run = Path(run)
    within = checkpoint.exists(run)
    found = checkpoint.load(run if within else run / "model")
    model = from_checkpoint(found, the_device(), trained_on(found))
    params = load_params()
    encoders = load_text_encoders(model.params, model.device)
    writer = new_writer(model, encoders, params.writer, params.seed)
    data = dataset(model.params, "train", emb=False)
    size = sum(p.numel() for p in writer.parameters())
    print(
        f"{size} numbers, {len(data)} pairs, {params.writer.steps} steps of {params.writer.batch}"
    )
    lines = train_writer(
        writer, model, data, encoders, params.writer, model.params.train, params.seed
    )
    return save_writer(run / NAME, writer, model, encoders, lines)


if __name__ == "__main__":
    print(f"wrote {main(sys.argv[1])}")
