"""SHA-256 of every file below a folder, in the format of `sha256sum`, so that a changed file can be
named.

Written in its usual dialect; read in every one that `sha256sum -c` reads.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

from satjepa.paths import replaced

NAME = "MANIFEST.sha256"
# digest, blank, "*" for binary or a second blank, name; one blank only is the reversed BSD dialect
_USUAL = re.compile(r"([0-9a-fA-F]{64})[ \t][ *]?(.+)", re.DOTALL)
# --tag, and the dialect of openssl, which has no blanks around the name
_TAGGED = re.compile(r"SHA256 ?\((.+)\) ?= ?([0-9a-fA-F]{64})", re.DOTALL)
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


class ManifestError(Exception):
    """Files differ from their manifest; `bad` maps each path, relative to the folder, to what is
    wrong with it.
    """

    def __init__(self, folder: Path, bad: dict[str, str]) -> None:
        super().__init__(folder, bad)
        self.folder = folder
        self.bad = bad

    def __str__(self) -> str:
        lines = [f"  {name}: {what}" for name, what in self.bad.items()]
        fix = "To fix: fetch the files again, or write the manifest again if the change is meant."
        return "\n".join([f"{self.folder}: {len(self.bad)} files differ from {NAME}", *lines, fix])


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: str | Path) -> Path:
    """Hash all files below `folder` into `folder`/MANIFEST.sha256 (check it also with `sha256sum
    -c`), atomically.
    """
    folder = Path(folder)
    lines = [_line(name, sha256(path)) for name, path in _files(folder).items()]
    with replaced(folder / NAME) as part:
        part.write_bytes(os.fsencode("".join(lines)))  # names need not be UTF-8
    return folder / NAME


def verify_manifest(folder: str | Path) -> int:
    """Hash all files again and return how many; ManifestError names every changed, missing and
    unlisted file, and every line that cannot be read. Hidden files count where they are listed.
    """
    folder = Path(folder)
    listed, bad = _read(folder)
    files = _files(folder)
    files |= {name: folder / name for name in listed if (folder / name).is_file()}
    bad |= {name: "missing" for name in listed if name not in files}
    bad |= {name: "not in the manifest" for name in files if name not in listed}
    for name in sorted(files.keys() & listed.keys()):
        now = sha256(files[name])
        if other := sorted(listed[name] - {now}):
            bad[name] = f"sha256 {now[:12]} instead of {other[0][:12]}"
    if bad:
        raise ManifestError(folder, bad)
    return len(files)


def _line(name: str, digest: str) -> str:
    """A line as sha256sum writes it: led by a backslash where the name has characters escaped."""
    escaped = name
    for code, character in _ESCAPES.items():
        escaped = escaped.replace(character, code)
    mark = "" if escaped == name else "\\"
    return f"{mark}{digest}  {escaped}\n"


def _read(folder: Path) -> tuple[dict[str, set[str]], dict[str, str]]:
    """The digests listed for each path, relative to the folder, and what is wrong with lines that
    list none.
    """
    listed: dict[str, set[str]] = {}
    bad = {}
    lines = (folder / NAME).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, start=1):
        text = os.fsdecode(line).removesuffix("\r")
        if not text.strip() or text.startswith("#"):
            continue
        entry = _entry(text.lstrip(" \t"))
        if entry is None:
            bad[f"{NAME}, line {number}"] = f"no line of sha256sum: {text[:60]!r}"
            continue
        name, digest = entry
        name = _relative(name, folder)
        if name != NAME:  # listed by whoever hashed all files while it was being written
            listed.setdefault(name, set()).add(digest.lower())
    return listed, bad


def _entry(text: str) -> tuple[str, str] | None:
    """Name and digest of a line; None where it is of no dialect."""
    escaped = text.startswith("\\")
    text = text.removeprefix("\\")
    if match := _TAGGED.fullmatch(text):
        name, digest = match.groups()
    elif match := _USUAL.fullmatch(text):
        digest, name = match.groups()
    else:
        return None
    if escaped:
        name = re.sub(r"\\[\\nr]", lambda code: _ESCAPES[code[0]], name)
    return name, digest


def _relative(name: str, folder: Path) -> str:
    """A listed path as `_files` has it: without "./", and below the folder where it is absolute."""
    path = PurePosixPath(name)
    if path.is_absolute() and path.is_relative_to(folder.absolute().as_posix()):
        path = path.relative_to(folder.absolute().as_posix())
    return path.as_posix()


def _files(folder: Path) -> dict[str, Path]:
    """Files by relative POSIX path, sorted; hidden ones, those in hidden folders and the manifest
    itself left out.
    """
    names = {}
    for path in folder.rglob("[!.]*"):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not hidden and name.as_posix() != NAME:
            names[name.as_posix()] = path
    return dict(sorted(names.items()))
