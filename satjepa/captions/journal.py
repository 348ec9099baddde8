"""Captions on their way into a table: a file of lines beside it, one line a batch.

A line is written at once and read as a whole or not at all, so that a process that is killed loses
at most the batch it was at. Each of several processes has a file of its own.

Whoever was started by a process that is killed may live on, as the workers of `accelerate launch`
and the kernel of a notebook do, and caption beside the run that follows. So the table and its
journals are touched by one process at a time (`alone_with`).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def journal_of(table: Path, rank: int) -> Path:
    """Where process `rank` keeps its rows until they are put together."""
    return table.with_name(f"{table.stem}.{rank}.jsonl")


def journals_of(table: Path) -> list[Path]:
    """Those that processes left beside a table."""
    return sorted(table.parent.glob(f"{table.stem}.*.jsonl"))


@contextmanager
def alone_with(table: Path) -> Iterator[None]:
    """Wait until no other process of this machine is in here with the same table's folder; a kill
    lets the next one in.
    """
    table.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(table.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def append(journal: Path, rows: list[dict]) -> None:
    """Add the rows of one batch."""
    line = json.dumps(rows, ensure_ascii=False) + "\n"
    with alone_with(journal), open(journal, "ab") as file:
        file.write(line.encode())


def read_rows(journal: Path) -> Iterator[dict]:
    """The rows of a journal. A line that was cut off is passed over: its batch is made again."""
    for line in journal.read_bytes().splitlines():
        with suppress(ValueError):
            yield from json.loads(line)
