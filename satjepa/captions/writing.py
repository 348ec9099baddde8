"""Adding to a captions table: a batch at a time, by one process or several, killed or not.

Each batch goes into a journal beside the table (`journal`), and that into the table, which is
written anew beside the old one and then over it: a kill costs at most one batch, and never the
file. Running it again adds only what is missing, and replaces what was said of an image whose
pixels have changed since, or by a model or prompts that were others. Rows are sorted, and a new
table's batches are the same for any number of processes and interruptions; so are its bytes, but
for the day that a model's rows name.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.captions.journal import alone_with, append, journal_of, journals_of, read_rows
from satjepa.captions.outcomes import GIVE_UP, CaptionsFailed, Failed, Outcome, Picture, Written
from satjepa.captions.table import COLUMNS, PROVENANCE, add_rows, keys_of, rows_of
from satjepa.contracts import Captions, PatchKey
from satjepa.data.share import Share

if TYPE_CHECKING:
    from tqdm import tqdm

    from satjepa.captions.outcomes import BatchCaptioner

Image = tuple[
    "PatchKey", np.ndarray, np.ndarray | None
]  # key, rgb (3,H,W) float in [0,1], valid (H,W) bool
Captioner = Callable[[np.ndarray, np.ndarray | None], Captions]
_Lacking = tuple["PatchKey", np.ndarray, np.ndarray | None, str]  # and the hash of the pixels


def caption_patches(
    patches: Iterable[Image],
    captioner: Captioner | BatchCaptioner,
    path: str | Path,
    name: str,
    prompt_version: int,
    every: float = 30.0,
    total: int | None = None,
    progress: bool = True,
    share: Share | None = None,
    batch: int | None = None,
    made_by: Mapping[str, str] | None = None,
) -> int:
    """Caption the images that the table at `path` lacks.

    Args:
        patches: key, rgb and valid of each image; taken one by one.
        captioner: rgb and valid to three texts, such as `rules.caption`; with a `batch`, a list of
            rgb and valid to an outcome each (`outcomes`).
        name, prompt_version: what the rows say about the captioner; an image is skipped where there
            is a row of both, made of the same pixels.
        every: seconds between two writes of the file, where one process works alone.
        total: length of `patches` for the progress bar, if it has none.
        share: of several processes that call this with the same arguments, each captions its
            batches, and the first puts the rows together.
        batch: how many images the captioner is given at once.
        made_by: columns of the provenance that a row must agree with, else it is made again.

    Returns how many captions were added, by all processes. Raises CaptionsFailed where images have
    none, after the others have been written.
    """
    share = share or Share()
    path = Path(path)
    if share.rank == 0:
        _tidy_up(path)
    share.wait()
    work = _Work(path, name, prompt_version, made_by or {}, share, every)
    size = batch or 1
    total = len(patches) if total is None and isinstance(patches, Sized) else total
    with _bar(total, size, share, progress) as bar:
        try:
            for block in share.of(_blocks(patches, size)):
                lacking = work.lacking(block)
                if lacking:
                    work.add(lacking, _outcomes(captioner, lacking, batch))
                _advance(bar, len(block), len(lacking))
                if work.failed_in_a_row >= GIVE_UP:
                    break
        finally:
            work.settle()
    share.wait()
    if share.rank == 0:
        _put_together(path)
    added = sum(share.gather([work.added]))
    failures = [failure for each in share.gather([work.failures]) for failure in each]
    if failures:
        raise CaptionsFailed(failures, added, any(share.gather([work.failed_in_a_row >= GIVE_UP])))
    return added


def _tidy_up(path: Path) -> None:
    """What killed processes left: rows that are not in the table, half-written tables."""
    with alone_with(path):
        for part in path.parent.glob(f".{path.name}.*.part"):
            part.unlink()
    _put_together(path)


def _blocks(patches: Iterable[Image], size: int) -> Iterator[list[Image]]:
    """The images in lists of `size`."""
    rest = iter(patches)
    while block := list(islice(rest, size)):
        yield block


def _outcomes(
    captioner: Captioner | BatchCaptioner, lacking: Sequence[_Lacking], batch: int | None
) -> list[Outcome]:
    pictures: list[Picture] = [(rgb, valid) for _, rgb, valid, _ in lacking]
    if batch is None:
        return [Written(captioner(rgb, valid), {}) for rgb, valid in pictures]
    return captioner(pictures)


def _bar(total: int | None, size: int, share: Share, progress: bool) -> tqdm:
    """A bar of what this process has to do, so that its rate and its time left are right."""
    from tqdm import tqdm

    if total is not None:
        total = sum(min(size, total - start) for start in share.of(range(0, total, size)))
    return tqdm(desc="captions", total=total, unit="patch", disable=not progress or share.rank > 0)


def _advance(bar: tqdm, images: int, captioned: int) -> None:
    """What was captioned already is no work: the bar gets shorter by it."""
    if bar.total is not None:
        bar.total -= images - captioned
    bar.update(captioned)


def _hash(rgb: np.ndarray, valid: np.ndarray | None) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(rgb), digest_size=8)
    if valid is not None:
        digest.update(np.ascontiguousarray(valid))
    return digest.hexdigest()


class _Work:
    """What a process has to caption, and what came of it."""

    def __init__(
        self,
        path: Path,
        name: str,
        prompt_version: int,
        made_by: Mapping[str, str],
        share: Share,
        every: float,
    ) -> None:
        self.path = path
        self.journal = journal_of(path, share.rank)
        self.alone = share.world == 1
        self.every = every
        self.settled = time.monotonic()
        self.written_by = {"captioner": name, "prompt_version": prompt_version}
        self.added = 0
        self.failures: list[tuple[PatchKey, str]] = []
        self.failed_in_a_row = 0
        table = rows_of(path, name, prompt_version)
        for column, value in made_by.items():
            table = table[table[column] == value]
        self.done = dict(zip(keys_of(table), table["image"], strict=True))

    def lacking(self, block: Sequence[Image]) -> list[_Lacking]:
        """The images of a block that have no captions, with the hash of their pixels."""
        found = []
        for key, rgb, valid in block:
            image = _hash(rgb, valid)
            if self.done.get(key) != image:
                self.done[key] = image
                found.append((key, rgb, valid, image))
        return found

    def add(self, lacking: Sequence[_Lacking], outcomes: Sequence[Outcome]) -> None:
        """Keep what came of a batch."""
        rows = []
        for (key, _, _, image), outcome in zip(lacking, outcomes, strict=True):
            if isinstance(outcome, Failed):
                self.failures.append((key, outcome.why))
                self.failed_in_a_row += 1
                continue
            self.failed_in_a_row = 0
            about = dict.fromkeys(PROVENANCE, "") | outcome.about
            texts = outcome.captions._asdict()
            rows.append(key._asdict() | texts | self.written_by | {"image": image} | about)
        if rows:
            append(self.journal, rows)
            self.added += len(rows)
        if time.monotonic() - self.settled >= self.every:
            self.settle()

    def settle(self) -> None:
        """Put the journal into the table, where no other process may be about to."""
        if self.alone:
            _put_together(self.path)
        self.settled = time.monotonic()


def _put_together(path: Path) -> None:
    """Add the rows of the processes' journals to the table, and remove these. A kill in between
    leaves both, and the rows are the same when they are added again.
    """
    import pandas as pd

    with alone_with(path):
        journals = journals_of(path)
        rows = [row for journal in journals for row in read_rows(journal)]
        if rows:
            add_rows(path, pd.DataFrame(rows)[list(COLUMNS)].astype(COLUMNS))
        for journal in journals:
            journal.unlink()
