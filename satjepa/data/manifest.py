"""SHA-256 of every file below a folder, in the format of `sha256sum`, so that a changed file can be
named.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

NAME = "MANIFEST.sha256"


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
    lines = [f"{sha256(path)}  {name}\n" for name, path in _files(folder).items()]
    part = folder / f".{NAME}.part"
    part.write_text("".join(lines), encoding="utf-8")
    os.replace(part, folder / NAME)
    return folder / NAME


def verify_manifest(folder: str | Path) -> int:
    """Hash all files again and return how many; ManifestError names every changed, missing and
    unlisted file.
    """
    folder = Path(folder)
    listed = dict(
        reversed(line.split("  ", 1))
        for line in (folder / NAME).read_text(encoding="utf-8").splitlines()
    )
    files = _files(folder)
    bad = {name: "missing" for name in listed if name not in files}
    bad |= {name: "not in the manifest" for name in files if name not in listed}
    for name in sorted(files.keys() & listed.keys()):
        if (now := sha256(files[name])) != listed[name]:
            bad[name] = f"sha256 {now[:12]} instead of {listed[name][:12]}"
    if bad:
        raise ManifestError(folder, bad)
    return len(files)


def _files(folder: Path) -> dict[str, Path]:
    """Files by relative POSIX path, sorted; hidden ones and the manifest itself left out."""
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("[!.]*")
        if path.is_file()
    }
    return {name: paths[name] for name in sorted(paths) if name != NAME}
