"""Captions on their way into a table: a file of lines beside it, one line a batch.

A line is written at once and read as a whole or not at all, so that a process that is killed loses
at most the batch it was at. Each of several processes has a file of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path


def journal_of(table: Path, rank: int) -> Path:
    """Where process `rank` keeps its rows until they are put together."""
    return table.with_name(f"{table.stem}.{rank}.jsonl")


def journals_of(table: Path) -> list[Path]:
    """Those that processes left beside a table."""
    return sorted(table.parent.glob(f"{table.stem}.*.jsonl"))


def append(journal: Path, rows: list[dict]) -> None:
    """Add the rows of one batch."""
    line = json.dumps(rows, ensure_ascii=False) + "\n"
    journal.parent.mkdir(parents=True, exist_ok=True)
    with open(journal, "ab", buffering=0) as file:
        file.write(line.encode())


def read_rows(journal: Path) -> Iterator[dict]:
    """The rows of a journal; what stands after its last line break was cut off by a kill."""
    *lines, _ = journal.read_bytes().split(b"\n")
    for line in lines:
        yield from json.loads(line)
