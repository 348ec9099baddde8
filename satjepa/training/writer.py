"""Training of the caption writer, after the model and without a change to it.

Tokens of t+1 come from the trained model, by its averaged weights; the words to be said are those
of the true caption of t+1. The weights lie beside the model they were trained for,

    <folder>/writer.safetensors    or, of a run, beside its folder `model`

and their header says for which tokens and for which text encoders they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from satjepa.contracts import SEMANTIC
from satjepa.data.pairs import spread_evenly
from satjepa.models.caption_writer import CaptionWriter, WriterSizes
from satjepa.models.led import tokens_ahead
from satjepa.paths import replaced
from satjepa.training.checkpoint import CheckpointError
from satjepa.training.kept import keep, used
from satjepa.training.optim import JointStepping, descend
from satjepa.training.provenance import hash_module
from satjepa.training.state import batch_indices

if TYPE_CHECKING:
    from satjepa.captions.embeddings import TextEncoders
    from satjepa.config.sections import Train, Writer
    from satjepa.data.pairs import PairDataset
    from satjepa.models.satjepa import SatJepa

NAME = "writer.safetensors"
FORMAT = "satjepa-writer-1"
ROUNDS = 10  # lines of the log
CURE = "`dvc repro writer`, or `python -m satjepa.pipeline.train_writer RUN`, trains one"


def new_writer(model: SatJepa, encoders: TextEncoders, how: Writer, seed: int) -> CaptionWriter:
    """An untrained writer of the captions that a model reads, on the CPU; equal seeds give equal
    weights. CheckpointError for a model that reads none.
    """
    length = require_listener(model)[SEMANTIC]
    tokenizer = encoders.tokenizers[2]
    positions = model.adapter.positions
    torch.manual_seed(seed)
    sizes = WriterSizes(
        vocabulary=encoders.t5.config.vocab_size, length=length, read=length,
        text_dim=encoders.hidden_dim, places=len(positions),
        token_dim=model.params.model.encoder.dim, start=tokenizer.pad_token_id,
        end=tokenizer.eos_token_id, dim=how.dim, layers=how.layers, heads=how.heads,
    )  # fmt: skip
    return CaptionWriter(sizes)


def require_listener(model: Any) -> tuple[int, int, int]:
    """The words of each caption that a model reads; CheckpointError where it reads none, or as the
    published code does: no sentence can lead it.
    """
    lengths = getattr(model, "lengths", None)
    if lengths is None or not model.params.model.use_captions:
        raise CheckpointError(
            "this model cannot be led by captions (it was trained without them, or as the "
            "published code does), so none are written for it"
        )
    return lengths


def train_writer(
    writer: CaptionWriter,
    model: SatJepa,
    dataset: PairDataset,
    encoders: TextEncoders,
    how: Writer,
    train: Train,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Teach a writer, on the model's device, what is said of t+1; `log` is told the mean loss ten
    times, and the lines are returned: step, loss in nats a word.

    dataset: of training, with captions; tokens of `how.windows` of its pairs are made once and
    kept, so that a step costs what the writer costs. train: what `how` does not say (warm-up,
    decay, clipping). What is random is a function of (seed, step). It cannot be resumed: a few
    minutes at most in the demo. CheckpointError for a loss that is not finite.
    """
    device = model.device
    writer.to(device).train()
    chosen = spread_evenly(len(dataset), how.windows)
    said = _spelled(dataset, chosen, encoders, writer.sizes.length)
    tokens = keep(dataset, chosen, partial(tokens_ahead, model), device)  # (n,N,D)
    changes = {"steps": how.steps, "lr": how.lr, "muon_lr": how.muon_lr}
    stepping = JointStepping(writer, train.model_copy(update=changes))
    lines: list[dict[str, float]] = []
    losses: list[Tensor] = []
    for step in range(how.steps):
        rows = batch_indices(seed, step, how.batch, len(chosen))
        now, ahead = dataset.words([chosen[row] for row in rows])[:, :, SEMANTIC]  # (B,) each
        truth = said[ahead].to(device)  # (B,T)
        told = _semantic(dataset, now, writer.sizes.read, device)
        loss = writer.loss(truth, truth != writer.sizes.start, told, used(tokens, rows, device))
        losses.append(descend(stepping, step, loss))
        if (step + 1) % max(1, how.steps // ROUNDS) == 0:
            lines.append({"step": step + 1, "loss": _mean(losses, step)})
            losses = []
            log("step {step}: {loss:.4f} nats a word".format(**lines[-1]))
    writer.eval()
    return lines


def _semantic(
    dataset: PairDataset, numbers: Tensor, read: int, device: torch.device
) -> dict[str, Tensor]:
    """Semantic captions (B,read,...) of the store of a data set, by their numbers (B,)."""
    found = dataset.text.gather(numbers[:, None], (read,))  # (B,1,L,...)
    return {name: value[:, 0].to(device) for name, value in found.items()}


def _spelled(
    dataset: PairDataset, chosen: Sequence[int], encoders: TextEncoders, length: int
) -> Tensor:
    """Token ids (n,T) of the captions of t+1 of some samples of a data set, by their numbers in its
    store; of other texts, no token.
    """
    used = dataset.words(chosen)[1, :, SEMANTIC].unique()
    texts = {number: text for text, number in dataset.text.numbers.items()}
    pad = encoders.tokenizers[2].pad_token_id
    ids = torch.full((len(texts), length), pad)
    made = encoders.tokenizers[2](
        [texts[number] for number in used.tolist()],
        padding="max_length", max_length=length, truncation=True, return_tensors="pt",
    )  # fmt: skip
    ids[used] = made.input_ids
    return ids


def _mean(losses: list[Tensor], step: int) -> float:
    """Mean of the losses since the last line; CheckpointError where one is not finite."""
    mean = torch.stack(losses).mean()
    if not mean.isfinite():
        raise CheckpointError(f"the writer's loss is not finite in the steps up to {step + 1}")
    return mean.item()


def save_writer(
    path: str | Path, writer: CaptionWriter, model: SatJepa, encoders: TextEncoders,
    lines: list[dict[str, float]],
) -> Path:  # fmt: skip
    """Write a writer's weights, float32, for the model and the encoders it was trained with, and
    the lines of its training. Equal contents give equal bytes.
    """
    from safetensors.torch import save_file

    header = {
        "format": FORMAT,
        "sizes": writer.sizes._asdict(),
        "tokens": tokens_digest(model),
        "encoders": encoders.fingerprint(),
        "log": lines,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in writer.state_dict().items()}
    # one key of metadata, as safetensors writes several in any order
    with replaced(path, sync=True) as part:
        save_file(tensors, part, {"satjepa": json.dumps(header, sort_keys=True)})
    return Path(path)


def find_writer(folder: str | Path) -> Path | None:
    """The file of the writer of the checkpoint in `folder`: in it, or, of a run, beside it."""
    folder = Path(folder)
    places = [folder / NAME] + [folder.parent / NAME] * (folder.name == "model")
    return next((path for path in places if path.is_file()), None)


def load_writer(folder: str | Path, model: SatJepa, encoders: TextEncoders) -> CaptionWriter:
    """The writer of the checkpoint in `folder`, on the model's device. CheckpointError where there
    is none, where it cannot be read, or was trained for other tokens or encoders.
    """
    from safetensors import SafetensorError, safe_open

    require_listener(model)
    path = find_writer(folder)
    if path is None:
        raise CheckpointError(f"no {NAME} with {folder}: {CURE}")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("satjepa", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): {CURE}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no caption writer of format {FORMAT}: {CURE}")
    for what, here in (("tokens", tokens_digest(model)), ("encoders", encoders.fingerprint())):
        if header[what] != here:
            raise CheckpointError(
                f"{path} was trained for other {what} than those of {folder}: {CURE}"
            )
    writer = CaptionWriter(WriterSizes(**header["sizes"]))
    writer.load_state_dict(tensors)
    return writer.eval().requires_grad_(False).to(model.device)


def tokens_digest(model: SatJepa) -> str:
    """sha256 of what makes the tokens of t+1: the averaged weights of encoder, past years and
    predictor; the same for a run's checkpoint and for what was exported of it.
    """
    parts = ("encoder", "past", "predictor")
    with model.averaged():
        kept = {name: getattr(model, name, None) for name in parts}
        made = torch.nn.ModuleDict({name: part for name, part in kept.items() if part is not None})
        return hash_module(made)
