"""A store of text embeddings: each text once, on disk, opened by memory map, gathered by batches.

A text is `hidden` (L, D), T5's states of its L tokens without padding, and `pooled` (P,), as
`satjepa.captions.embeddings` has it; both in bfloat16.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from satjepa.data.share import Share
from satjepa.paths import replaced

if TYPE_CHECKING:
    from satjepa.captions.embeddings import TextEncoders

SHARD = 1024  # texts per file: 0.8 GB where a text has 100 tokens of width 4096


class TextBuffer:
    """Memory that the texts of one batch after another are gathered into.

    hidden (B,S,L,D), zero on padding, mask (B,S,L) bool, pooled (B,S,P). The S-th text of a row is
    cut to `lengths[S]` tokens; L is the largest of them.

    dtype: of hidden and pooled, bfloat16 as stored or float32. pinned: where a GPU can fetch it by
    itself.
    """

    def __init__(
        self,
        batch: int,
        lengths: Sequence[int],
        hidden_dim: int,
        pooled_dim: int,
        dtype: torch.dtype = torch.float32,
        pinned: bool = False,
    ) -> None:
        rows = (batch, len(lengths))
        kept = {"dtype": dtype, "pin_memory": pinned}
        self.hidden = torch.zeros(*rows, max(lengths), hidden_dim, **kept)
        self.pooled = torch.zeros(*rows, pooled_dim, **kept)
        self.mask = torch.zeros(*rows, max(lengths), dtype=torch.bool, pin_memory=pinned)
        self.cuts = torch.tensor(lengths).repeat(batch)  # (B S,)
        self.filled = [0] * len(self.cuts)  # tokens of each text that `hidden` holds

    def fill(self, hidden: list[Tensor], pooled: list[Tensor]) -> dict[str, Tensor]:
        """Copy B S texts, row by row; what is given back is this memory itself."""
        tokens = torch.minimum(torch.tensor([len(text) for text in hidden]), self.cuts)
        flat = self.hidden.flatten(0, 1)  # (B S, L, D)
        wanted = tokens.tolist()
        stale = [
            flat[row, new:old]
            for row, (new, old) in enumerate(zip(wanted, self.filled, strict=True))
            if new < old
        ]
        if stale:
            torch._foreach_zero_(stale)
        places = [flat[row, :new] for row, new in enumerate(wanted)]
        torch._foreach_copy_(places, [text[: wanted[row]] for row, text in enumerate(hidden)])
        torch._foreach_copy_([*self.pooled.flatten(0, 1)], pooled)
        steps = torch.arange(self.hidden.shape[2])
        torch.less(steps, tokens[:, None], out=self.mask.flatten(0, 1))
        self.filled = wanted
        return {"hidden": self.hidden, "mask": self.mask, "pooled": self.pooled}


class TextStore:
    """Embeddings of texts in a folder of safetensors files that describe themselves.

    Each file holds hidden (sum of L, D), pooled (N, P) and, in its metadata, the N texts and their
    lengths. Files are memory-mapped, written beside and renamed, and never changed: an interrupted
    `write` goes on where it stopped, and what is no longer asked for may stay.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.numbers: dict[str, int] = {}
        self.hidden: list[Tensor] = []  # (L,D) of each text, views of the mapped files
        self.pooled: list[Tensor] = []  # (P,)
        for file in sorted(self.path.glob("*.safetensors")):
            self._map(file)
        if not self.numbers:
            raise FileNotFoundError(
                f"no caption embeddings in {self.path}: run `dvc repro embeddings`"
            )

    def _map(self, file: Path) -> None:
        from safetensors import safe_open

        about = _about(file)
        with safe_open(file, "pt") as shard:
            hidden = shard.get_tensor("hidden")
            pooled = shard.get_tensor("pooled")
        for text in about["texts"]:
            self.numbers[text] = len(self.numbers)
        self.hidden += hidden.split(about["lengths"])
        self.pooled += pooled

    @classmethod
    def open(cls, path: str | Path) -> TextStore:
        """Open the store in the folder `path`; FileNotFoundError where there is none."""
        return cls(path)

    @classmethod
    def write(
        cls,
        path: str | Path,
        texts: Iterable[str],
        encoders: TextEncoders,
        max_length: int,
        batch: int = 64,
        progress: bool = True,
        share: Share | None = None,
    ) -> TextStore:
        """Embed "" and what of `texts` is lacking, and open.

        What other encoders or another `max_length` wrote is deleted, and so is a file that cannot
        be read. share: of several processes that call this with the same arguments, each embeds its
        files; the files are those that one process writes.
        """
        from tqdm import tqdm

        share = share or Share()
        path = Path(path)
        key = f"{encoders.fingerprint()}-{max_length}"
        if share.rank == 0:
            path.mkdir(parents=True, exist_ok=True)
            _clear(path, key)
        share.wait()
        stored = {text for file in path.glob("*.safetensors") for text in _about(file)["texts"]}
        share.wait()  # until all have looked, nobody adds a file
        # alike in length: little padding
        todo = sorted({"", *texts} - stored, key=lambda text: (len(text), text))
        shards = [todo[start : start + SHARD] for start in range(0, len(todo), SHARD)]
        mine = list(share.of(shards))
        with tqdm(
            total=sum(map(len, mine)),
            desc="caption embeddings",
            unit="text",
            disable=not progress or share.rank > 0,
        ) as bar:
            for shard in mine:
                _write_shard(path, shard, encoders, max_length, batch, key, bar)
        share.wait()
        return cls(path)

    def __reduce__(self) -> tuple:
        # a worker process maps the files again instead of receiving a copy
        return TextStore, (self.path,)

    def __len__(self) -> int:
        return len(self.numbers)

    def number(self, text: str) -> int:
        """The number of a text in this store, as `gather` takes it; KeyError names a text that is
        not stored.
        """
        try:
            return self.numbers[text]
        except KeyError:
            raise KeyError(
                f"no embedding of {text!r} in {self.path}: embed the captions again"
            ) from None

    def __getitem__(self, text: str) -> tuple[Tensor, Tensor]:
        """hidden (L,D) and pooled (P,) of a text in bfloat16; KeyError as `number`."""
        number = self.number(text)
        return self.hidden[number], self.pooled[number]

    def buffer(
        self,
        batch: int,
        lengths: Sequence[int],
        dtype: torch.dtype = torch.float32,
        pinned: bool = False,
    ) -> TextBuffer:
        """Memory for `gather`, for `batch` rows of len(lengths) texts."""
        widths = self.hidden[0].shape[-1], self.pooled[0].shape[-1]
        return TextBuffer(batch, lengths, *widths, dtype, pinned)

    def gather(
        self, numbers: Tensor, lengths: Sequence[int], buffer: TextBuffer | None = None
    ) -> dict[str, Tensor]:
        """B rows of S texts, by their numbers (B,S): hidden (B,S,L,D), zero on padding, mask
        (B,S,L) bool and pooled (B,S,P).

        The S-th text of a row is cut to `lengths[S]` tokens; L is the largest of `lengths`. Without
        a `buffer` of that shape they are float32 in memory of their own.
        """
        buffer = buffer or self.buffer(len(numbers), lengths)
        wanted = numbers.flatten().tolist()
        return buffer.fill([self.hidden[n] for n in wanted], [self.pooled[n] for n in wanted])


def _about(file: Path) -> dict[str, Any]:
    """Which encoders wrote a file, its texts and their lengths in tokens."""
    from safetensors import safe_open

    with safe_open(file, "pt") as shard:
        return json.loads(shard.metadata()["about"])


def _clear(path: Path, key: str) -> None:
    """Remove what was left half-written, cannot be read, or was written by other encoders."""
    from safetensors import SafetensorError

    for file in path.glob("*.part"):
        file.unlink()
    for file in path.glob("*.safetensors"):
        try:
            fits = _about(file)["encoders"] == key
        except (SafetensorError, KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            file.unlink()


def _write_shard(
    path: Path,
    texts: list[str],
    encoders: TextEncoders,
    max_length: int,
    batch: int,
    key: str,
    bar: Any,
) -> None:
    from safetensors.torch import save_file

    hidden = []
    pooled = []
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        for h, p in encoders.encode(part, max_length, batch):
            hidden.append(h.bfloat16().cpu())
            pooled.append(p.bfloat16().cpu())
        bar.update(len(part))
    about = {"encoders": key, "texts": texts, "lengths": [len(h) for h in hidden]}
    name = hashlib.sha256(json.dumps([key, texts]).encode()).hexdigest()[:16]
    tensors = {"hidden": torch.cat(hidden), "pooled": torch.stack(pooled)}
    # one key of metadata: safetensors writes several in any order, and equal runs give equal bytes
    with replaced(path / f"{name}.safetensors", sync=True) as part:
        save_file(tensors, part, {"about": json.dumps(about)})
