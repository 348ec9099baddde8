"""Scenes out of an archive: none of its names can lead out of the folder, each file is there only
when it is complete, and what is there already is not written again.
"""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from satjepa.paths import replaced
from satjepa.region.fetch_errors import NoSpaceError

CHUNK = 1 << 20  # bytes
_DAMAGES = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError,
    NotImplementedError,
)  # fmt: skip


class ArchiveError(Exception):
    """An archive that was not unpacked: its path, and what is wrong with it."""


class UnsafeArchiveError(ArchiveError):
    """A name in it leads out of the folder it is unpacked into, or is a link or a device."""


class BrokenArchiveError(ArchiveError):
    """It cannot be read to its end."""


class Member:
    """A file in an archive: name, bytes, and how it is opened."""

    def __init__(self, name: str, size: int, opened: Callable[[], IO[bytes]]) -> None:
        self.name = name
        self.size = size
        self.opened = opened


def unpack(
    archive: str | Path, folder: str | Path, place: Callable[[str], str | None]
) -> dict[str, int]:
    """Write the members for which `place` (of their name) gives a path, relative to `folder`;
    returns these paths with their sizes.

    A file that is there with the same bytes stays as it is. Raises UnsafeArchiveError before
    anything is written, BrokenArchiveError, NoSpaceError.
    """
    folder = Path(folder)
    with _members(Path(archive)) as members:
        placed = [(member, place(member.name)) for member in members]
        wanted = [(member, path) for member, path in placed if path is not None]
        missing = [m.size for m, path in wanted if not (folder / path).exists()]
        free = shutil.disk_usage(folder).free
        if sum(missing) > free:
            found = f"{sum(missing)} bytes to unpack, {free} free in {folder}"
            raise NoSpaceError(str(archive), found, "make room, or choose another disk")
        for member, path in wanted:
            if not _is_there(folder / path, member):
                _write(folder / path, member)
    return {path: member.size for member, path in wanted}


@contextmanager
def _members(archive: Path) -> Iterator[list[Member]]:
    """The files of an archive, after a look at all its names."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                yield _of_zip(archive, packed)
        else:
            with tarfile.open(archive) as packed:
                yield _of_tar(archive, packed)
    except _DAMAGES as error:
        raise BrokenArchiveError(f"{archive}: cannot be read to its end ({error})") from error


def _of_zip(archive: Path, packed: zipfile.ZipFile) -> list[Member]:
    members = []
    for info in packed.infolist():
        link = (info.external_attr >> 16) & 0o170000 == 0o120000
        _refuse(archive, info.orig_filename, "a link" if link else "")
        if info.flag_bits & 1:
            raise BrokenArchiveError(f"{archive}: {info.filename} is encrypted")
        if not info.is_dir():
            members.append(Member(info.filename, info.file_size, _opener(packed, info)))
    return members


def _of_tar(archive: Path, packed: tarfile.TarFile) -> list[Member]:
    members = []
    for info in packed:
        _refuse(archive, info.name, "" if info.isreg() or info.isdir() else "a link or a device")
        if info.isreg():
            members.append(Member(info.name, info.size, _extractor(packed, info)))
    while packed.fileobj.read(CHUNK):  # to the end, where what it is packed with has its checksum
        pass
    return members


def _opener(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: packed.open(info)


def _extractor(packed: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    return lambda: packed.extractfile(info)


def _refuse(archive: Path, name: str, what: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    absolute = name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name)
    if absolute or ".." in parts or "\0" in name:
        what = "a name that leads out of the folder"
    if what:
        raise UnsafeArchiveError(
            f"{archive}: {name!r} is {what}; nothing was unpacked, as an archive of images has no "
            "such thing. To fix: fetch it from another source"
        )


def _is_there(path: Path, member: Member) -> bool:
    """Whether a file has the bytes of a member."""
    if not path.is_file() or path.stat().st_size != member.size:
        return False
    with path.open("rb") as ours, member.opened() as theirs:
        while chunk := theirs.read(CHUNK):
            if ours.read(len(chunk)) != chunk:
                return False
    return True


def _write(path: Path, member: Member) -> None:
    with replaced(path, sync=True) as part, member.opened() as packed, part.open("wb") as file:
        shutil.copyfileobj(packed, file, CHUNK)
        if file.tell() != member.size:
            raise EOFError(f"{member.name} ends at {file.tell()} of {member.size} bytes")
