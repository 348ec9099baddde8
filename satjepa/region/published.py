"""The published data set, of 100 regions and the years 2017 to 2024, from the record of its DOI or
from its mirror on the hub, brought into the layout that everything here reads.

What the source has, how large it is and its checksums are asked at run time. Single files go to
their place; archives are unpacked one after the other. A run that is stopped goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from satjepa.paths import write_text
from satjepa.region.archives import ArchiveError, unpack
from satjepa.region.fetch import PATIENT, Log, fetch
from satjepa.region.fetch_errors import (
    FetchError,
    NoSpaceError,
    RefusedError,
    UnreachableError,
    WrongBytesError,
)
from satjepa.region.listing import Listed, hub_listing, place_of, record_listing
from satjepa.region.part import hidden
from satjepa.region.patience import Patience

DOI = "10.5281/zenodo.18868643"
RECORD = "https://zenodo.org/api/records/18868643"
DATASET = (
    "kursatkomurcu/Global-Spatiotemporal-Sentinel-2-Dataset-with-Pre-computed-GEE-Embeddings-"
    "2017-2024"
)
EXPANSION = 1.5  # estimate: bytes of unpacked images for each byte of an archive
ARCHIVES = ".archives"  # below the root; a folder that begins with a dot is no region


class PublishedError(Exception):
    """The data set is not all there; what is, stays."""


@dataclass(frozen=True)
class Plan:
    """What is to be fetched: single files by their path below the root, archives, and the names of
    files that are neither.
    """

    scenes: dict[str, Listed]
    archives: list[Listed]
    others: list[str]


def get_published(
    out: str | Path,
    regions: Sequence[str] | None = None,
    source: str | None = None,
    log: Log = print,
    *,
    record: str = RECORD,
    dataset: str = DATASET,
    endpoint: str | None = None,
    patience: Patience = PATIENT,
) -> list[Path]:
    """Fetch the published data set, or the named regions of it, into <out>/<Region>/; returns the
    paths of its rasters, sorted.

    source: "zenodo" (the record), "hub" (the mirror), the address of another record in its API;
    None takes the record and, where that cannot be had, the mirror. `record`, `dataset` and
    `endpoint` are their addresses. Raises FetchError (NoSpaceError before anything is fetched,
    UnreachableError when the server is gone: the same call goes on later), PublishedError (a region
    that is not there, or files that are not as listed: all others are fetched first).
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    listed = _listing(source, record, dataset, endpoint, patience, log)
    plan = plan_of(listed, regions)
    if regions and not plan.archives:
        _refuse_unknown(regions, {path.split("/")[0] for path in plan.scenes}, listed)
    _say(plan, log)
    _refuse_if_too_large(plan, out)
    lost = _fetch_singles(plan, out, patience, log)
    taken = set(plan.scenes)
    for file in plan.archives:
        try:
            taken |= _from_archive(file, out, regions, taken, patience, log)
        except (WrongBytesError, RefusedError, ArchiveError) as error:
            lost[file.name] = error
    found = sorted(out / path for path in taken if (out / path).is_file())
    if lost:
        lines = [f"{len(lost)} files of {len(listed)} could not be had; the others are there"]
        raise PublishedError("\n  ".join([*lines, *map(str, lost.values())]))
    if regions:
        _refuse_unknown(regions, {path.parent.name for path in found}, listed)
    log(f"{out}: {len(found)} rasters; check them: satjepa data verify {out}")
    return found


def _fetch_singles(
    plan: Plan, out: Path, patience: Patience, log: Log
) -> dict[str, Exception]:  # fmt: skip
    """Fetch the single files; what was wrong with those that could not be had, by name."""
    from tqdm import tqdm

    lost: dict[str, Exception] = {}
    for path, file in tqdm(plan.scenes.items(), "rasters", unit="file", disable=None):
        try:
            fetch(file.url, out / path, size=file.size, checksum=file.checksum,
                  headers=file.headers, patience=patience, log=log)  # fmt: skip
        except (WrongBytesError, RefusedError) as error:
            lost[file.name] = error
    return lost


def _listing(
    source: str | None, record: str, dataset: str, endpoint: str | None, patience: Patience,
    log: Log,
) -> list[Listed]:  # fmt: skip
    if source == "hub":
        return hub_listing(dataset, endpoint)
    if source not in (None, "zenodo"):
        return record_listing(source, patience, log)
    try:
        return record_listing(record, patience, log)
    except (UnreachableError, RefusedError) as error:
        if source:
            raise
        log(f"the record is not to be had ({error}); the mirror is asked")
    return hub_listing(dataset, endpoint)


def plan_of(listed: Iterable[Listed], regions: Sequence[str] | None = None) -> Plan:
    """What of a list belongs to the regions (None: all), by name. An archive that has the name of a
    region is of that region; any other may hold each of them.
    """
    listed = list(listed)
    plan = Plan({}, [], [])
    for file in listed:
        place = place_of(file.name)
        if place and (regions is None or place.region in regions):
            plan.scenes.setdefault(place.path, file)
        elif place is None and not file.is_archive:
            plan.others.append(file.name)
    archives = [file for file in listed if file.is_archive]
    own = [file for file in archives if regions and _region_of_archive(file) in regions]
    complete = regions and {_region_of_archive(file) for file in own} >= set(regions)
    plan.archives.extend(own if complete else archives)
    return plan


def _region_of_archive(file: Listed) -> str:
    """The name without endings and without what the names of scenes begin with."""
    name = PurePosixPath(file.name).name
    for start in ("s2_rgb_", "gee_embeddings_", "embedding_"):
        name = name.removeprefix(start)
    return name.split(".")[0].removesuffix("_10km")


def _say(plan: Plan, log: Log) -> None:
    archives = sum(file.size or 0 for file in plan.archives)
    single = sum(file.size or 0 for file in plan.scenes.values())
    log(
        f"{len(plan.scenes)} rasters ({single / 1e9:.2f} GB), {len(plan.archives)} archives "
        f"({archives / 1e9:.2f} GB); {len(plan.others)} other files are left out"
        + (f": {', '.join(plan.others[:5])}" if plan.others else "")
    )
    if not plan.scenes and not plan.archives:
        raise PublishedError("the source lists neither rasters of the layout nor archives")


def _refuse_if_too_large(plan: Plan, out: Path) -> None:
    """NoSpaceError where the disk has less room than what is still to come needs."""
    single = sum(_to_come(file, out / path) for path, file in plan.scenes.items())
    sizes = [
        _to_come(file, _place_of_archive(out, file))
        for file in plan.archives
        if _note(out, file) is None
    ]
    needed = single + int(EXPANSION * sum(sizes)) + max(sizes, default=0)
    free = shutil.disk_usage(out).free
    if needed > free:
        found = (
            f"{needed / 1e9:.2f} GB needed ({single / 1e9:.2f} of single files; for "
            f"{sum(sizes) / 1e9:.2f} of archives an estimated {EXPANSION} times as much unpacked, "
            f"and the largest one beside it), {free / 1e9:.2f} GB free"
        )
        raise NoSpaceError(str(out), found, "make room, name fewer regions, or another disk")


def _to_come(file: Listed, path: Path) -> int:
    here = [place for place in (path, hidden(path, "part")) if place.is_file()]
    return max(0, (file.size or 0) - max((place.stat().st_size for place in here), default=0))


def _place_of_archive(out: Path, file: Listed) -> Path:
    return out / ARCHIVES / file.name.replace("\\", "/").replace("/", "__")


def _from_archive(
    file: Listed, out: Path, regions: Sequence[str] | None, taken: set[str], patience: Patience,
    log: Log,
) -> set[str]:  # fmt: skip
    """Fetch and unpack one; returns the paths of the wanted rasters that are there by it.

    It is deleted when all rasters in it are unpacked; what was in it is noted, so that it is not
    fetched again.
    """
    local = _place_of_archive(out, file)
    scenes = _note(out, file)
    if scenes is not None:
        wanted = {path for path in scenes if not regions or path.split("/")[0] in regions}
        if all(_has(out, path, scenes[path]) for path in wanted):
            return wanted
    fetch(file.url, local, size=file.size, checksum=file.checksum, headers=file.headers,
          patience=patience, log=log)  # fmt: skip
    inside: set[str] = set()

    def place(name: str) -> str | None:
        scene = place_of(name)
        if scene is None or scene.path in taken or scene.path in inside:
            return None
        inside.add(scene.path)
        return None if regions and scene.region not in regions else scene.path

    written = unpack(local, out, place)
    known = dict.fromkeys(inside, -1) | (scenes or {}) | written
    note = {"checksum": file.checksum, "size": file.size, "scenes": known}
    if all(_has(out, path, size) for path, size in known.items()):
        local.unlink()
    else:
        log(f"{local} is kept for its other regions; delete it when you want none of them")
    write_text(_noted_at(out, file), json.dumps(note))
    return set(written)


def _noted_at(out: Path, file: Listed) -> Path:
    return hidden(_place_of_archive(out, file), "unpacked.json")


def _note(out: Path, file: Listed) -> dict[str, int] | None:
    """Paths and sizes (-1: left in it) of the rasters of an archive that was unpacked before; None
    where it was not, or was another one.
    """
    try:
        note = json.loads(_noted_at(out, file).read_text(encoding="utf-8"))
        same = (note["checksum"], note["size"]) == (file.checksum, file.size)
        return dict(note["scenes"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _has(out: Path, path: str, size: int) -> bool:
    return (out / path).is_file() and (out / path).stat().st_size == size


def _refuse_unknown(regions: Sequence[str], found: set[str], listed: Sequence[Listed]) -> None:
    if lacking := [region for region in regions if region not in found]:
        places = [place_of(file.name) for file in listed]
        known = sorted({place.region for place in places if place})
        names = f"; it has {', '.join(known)}" if known else ""
        raise PublishedError(f"no region {', '.join(lacking)} in the data set{names}")


__all__ = ["DATASET", "DOI", "RECORD", "FetchError", "Plan", "PublishedError", "get_published"]
