"""What a source of the published data set has: its files, with size and checksum, from the record
that has the DOI or from the mirror on the hub, and which scene of the layout each of them is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from satjepa.region.fetch import PATIENT, Log, fetch_json
from satjepa.region.fetch_errors import RefusedError
from satjepa.region.patience import Patience

_SCENE = re.compile(
    r"(s2_rgb|gee_embeddings|embedding)_(?:(.+)_)?((?:19|20)\d\d)(?:\D.*)?\.tiff?", re.IGNORECASE
)
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Listed:
    """A file of a source: name (with folders, where the source has them), address, bytes, checksum
    as `satjepa.region.fetch` takes it, and the headers that the source wants.
    """

    name: str
    url: str
    size: int | None
    checksum: str | None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_archive(self) -> bool:
        """Whether scenes may be packed in it."""
        return self.name.lower().endswith(ARCHIVES)


@dataclass(frozen=True)
class Place:
    """A scene's file in the published layout."""

    kind: str  # s2_rgb or gee_embeddings
    region: str
    year: int

    @property
    def path(self) -> str:
        """Relative to the root of the regions."""
        return f"{self.region}/{self.kind}_{self.region}_{self.year}_10km.tif"


def place_of(name: str) -> Place | None:
    """Which scene a file is, by its name, or by that of its folder where its own has no region;
    None for any other file. What comes back is safe as a path below a folder.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    match = _SCENE.fullmatch(path.name)
    if match is None:
        return None
    region = match[2] or path.parent.name
    if not region or region[0] in "._":  # no region to those who read the layout
        return None
    kind = "s2_rgb" if match[1].lower() == "s2_rgb" else "gee_embeddings"
    return Place(kind, region, int(match[3]))


def record_listing(record: str, patience: Patience = PATIENT, log: Log = print) -> list[Listed]:
    """The files of a record by its address in the repository's API, of its newest version where
    that is what the address leads to. Raises RefusedError, UnreachableError.
    """
    told = fetch_json(record, patience=patience, log=log)
    entries = told.get("files") if isinstance(told, dict) else None
    if isinstance(entries, dict):  # in the newer form, by name
        entries = [{"key": key, **entry} for key, entry in entries.get("entries", {}).items()]
    if not isinstance(entries, list) or not entries:
        raise RefusedError(record, "an answer that lists no files", "check the address")
    try:
        return [_of_record(record, told.get("id"), entry) for entry in entries]
    except (KeyError, TypeError, ValueError) as error:
        found = f"a list of files that cannot be read ({error!r})"
        raise RefusedError(record, found, "check the address, or use the mirror") from error


def _of_record(record: str, number: Any, entry: dict[str, Any]) -> Listed:
    links = entry.get("links") or {}
    base = f"{record.rpartition('/')[0]}/{number}" if number else record
    own = f"{base}/files/{quote(entry['key'])}/content"
    size = entry.get("size")
    address = links.get("content") or links.get("self") or own
    return Listed(entry["key"], address, None if size is None else int(size), entry["checksum"])


def hub_listing(dataset: str, endpoint: str | None = None) -> list[Listed]:
    """The files of a data set on the hub, all of one revision, with SHA-256 or git's object id.

    `endpoint`: address of the hub where it is another one. Raises RefusedError.
    """
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import build_hf_headers

    api = HfApi(endpoint=endpoint)
    try:
        revision = api.dataset_info(dataset).sha
        found = api.list_repo_tree(dataset, recursive=True, repo_type="dataset", revision=revision)
        files = [entry for entry in found if isinstance(entry, RepoFile)]
    except (HfHubHTTPError, OSError, *_network_errors()) as error:
        found = f"the list of {dataset} was not to be had ({str(error)[:160]})"
        raise RefusedError(api.endpoint, found, "try later, or another source") from error
    login = build_hf_headers().get("authorization")
    headers = {"Authorization": login} if login else {}  # left out where another host is led to
    return [
        Listed(
            file.path,
            hf_hub_url(dataset, file.path, repo_type="dataset", revision=revision,
                       endpoint=endpoint),
            file.size,
            f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}",
            headers,
        )
        for file in files
    ]  # fmt: skip


def _network_errors() -> tuple[type[Exception], ...]:
    """What the hub's own client lets through when there is no network."""
    from huggingface_hub.errors import HfHubHTTPError

    roots = [kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"]
    return tuple(roots)
