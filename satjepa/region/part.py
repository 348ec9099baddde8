"""A file on its way: its bytes so far, and what the server said of the whole, hidden beside it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from satjepa.paths import to_disk, write_text
from satjepa.region.fetch_errors import BusyError

FROM_THE_START = {"url": "", "etag": "", "modified": "", "total": None}


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: address, bytes and checksum ("md5:<hex>", "sha256:<hex>", "git:<hex>" for
    the object id that git gives it), the last two where they are known.
    """

    url: str
    size: int | None = None
    checksum: str | None = None

    def fault(self, path: Path) -> str:
        """What is wrong with a file that should be this one, in words; "" for nothing."""
        found = path.stat().st_size
        if self.size is not None and found != self.size:
            return f"{found} bytes instead of {self.size}"
        if self.checksum is None:
            return ""
        kind, _, digest = self.checksum.partition(":")
        now = digest_of(path, kind)
        return "" if now == digest.lower() else f"{kind} {now} instead of {digest}"


def digest_of(path: Path, kind: str) -> str:
    """Hex digest of a file by the name of an algorithm; "git" is SHA-1 of git's header and the
    bytes. ValueError for another name.
    """
    with path.open("rb") as file:
        if kind != "git":
            return hashlib.file_digest(file, kind).hexdigest()
        header = f"blob {path.stat().st_size}\0".encode()
        return hashlib.file_digest(file, lambda: hashlib.sha1(header)).hexdigest()


class Part:
    """The bytes of `wanted` so far, beside `target`, open for appending, for this process alone."""

    def __init__(self, target: Path, wanted: Wanted, file: IO[bytes], facts: Path) -> None:
        self.target = target
        self.wanted = wanted
        self.file = file
        self.facts = facts  # a small JSON file: which file the bytes are of
        self.told = self._recorded()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.file.tell()

    @property
    def validator(self) -> str:
        """What goes into If-Range; "" where this server gave nothing that identifies the bytes."""
        if self.told["url"] != self.wanted.url:
            return ""
        etag = self.told["etag"]
        return etag if etag and not etag.startswith("W/") else self.told["modified"]

    def _recorded(self) -> dict:
        """What was written down of the bytes so far; where that is of another file, or where
        nothing could prove that the rest belongs to them, they are dropped.
        """
        try:
            told = FROM_THE_START | json.loads(self.facts.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            told = {}
        same = all(told.get(key) == value for key, value in self._identity().items())
        proof = self.wanted.checksum or told.get("etag") or told.get("modified")
        too_long = self.wanted.size is not None and self.size > self.wanted.size
        if not (same and proof) or too_long:
            self.file.truncate(0)
            self.file.seek(0)
            return dict(FROM_THE_START)
        return told

    def _identity(self) -> dict:
        """By which the bytes so far are known to be of the wanted file: its checksum, from
        wherever it came; without one, its address.
        """
        wanted = self.wanted
        if wanted.checksum:
            return {"checksum": wanted.checksum, "size": wanted.size}
        return {"url": wanted.url, "checksum": None}

    def begin(self, etag: str, modified: str, total: int | None) -> None:
        """Drop what is there and write down what the server says of the file that now comes."""
        self.file.truncate(0)
        self.file.seek(0)
        said = {"etag": etag, "modified": modified, "total": total}
        self.told = {**self._identity(), "url": self.wanted.url, **said}
        write_text(self.facts, json.dumps(self.told))

    def drop(self) -> None:
        """Forget all bytes so far."""
        self.begin("", "", None)

    def finish(self, keep_facts: Path | None = None) -> None:
        """Put the bytes in their place, and what the server said of them where it is asked for."""
        self.file.flush()
        to_disk(_part(self.target))
        if keep_facts is None:
            self.facts.unlink(missing_ok=True)
        else:
            os.replace(self.facts, keep_facts)
        os.replace(_part(self.target), self.target)
        to_disk(self.target.parent)


def hidden(target: Path, ending: str) -> Path:
    """A hidden name beside `target`, of its own and short enough wherever the target's is."""
    own = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]
    return target.with_name(f".{target.name[:40]}.{own}.{ending}")


def _part(target: Path) -> Path:
    return hidden(target, "part")


@contextmanager
def partial(target: Path, wanted: Wanted) -> Iterator[Part]:
    """Open the bytes so far of a file; BusyError where another process has them open. What is
    left inside the block stays for the next one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with _part(target).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fix = "wait for it, or stop it"
                found = f"another process is fetching {target}"
                raise BusyError(wanted.url, found, fix) from None
            if not _is_named(file, _part(target)):
                continue  # it was finished, and renamed, between our opening and locking it
            try:
                yield Part(target, wanted, file, hidden(target, "json"))
            finally:
                file.flush()
                if _is_named(file, _part(target)) and not file.tell():  # nothing came
                    _part(target).unlink()
                    hidden(target, "json").unlink(missing_ok=True)
            return


def _is_named(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
