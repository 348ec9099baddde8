"""A file by HTTP: what arrived before is kept and the rest asked for; a server that fails is asked
again; under its own name the file is there only when it is complete and proven.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import satjepa
from satjepa.region.fetch_errors import (
    FetchError,
    NoSpaceError,
    RefusedError,
    UnreachableError,
    WrongBytesError,
)
from satjepa.region.part import Part, Wanted, hidden, partial
from satjepa.region.patience import AgainError, Attempts, Patience, retry_after

if TYPE_CHECKING:
    from requests import Response

AGENT = f"satjepa/{satjepa.__version__}"  # some servers refuse those that do not say who they are
PASSING = {408, 425, 429, 500, 502, 503, 504, 520, 522, 524}  # answers that may be others later
CHUNK = 1 << 14  # bytes; where a connection breaks, at most so many that came are lost
PATIENT = Patience()
Log = Callable[[str], None]


def fetch(
    url: str,
    path: str | Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    headers: Mapping[str, str] | None = None,
    patience: Patience = PATIENT,
    log: Log = print,
    anew: bool = False,
    keep_facts: Path | None = None,
) -> Path:
    """Fetch `url` to `path` and return that.

    A file that is there already is only checked, and fetched again where it is not the one of
    `size` (bytes) and `checksum` ("md5:<hex>", "sha256:<hex>" or "git:<hex>"), or where it is asked
    for `anew`. What an earlier call left of it is gone on with, where server and checksum allow it:
    a file that changed in between begins from the start. `keep_facts`: a JSON file for what the
    server said that identifies the bytes. Raises FetchError: RefusedError, UnreachableError after
    all tries of `patience`, WrongBytesError, BusyError, NoSpaceError.
    """
    path = Path(path)
    wanted = Wanted(url, size, checksum)
    if path.is_file() and not anew and not wanted.fault(path):
        return path
    attempts = Attempts(url, patience, log)
    with partial(path, wanted) as part:
        faults = 0
        while fault := _filled(part, attempts, headers or {}):
            faults += 1
            part.drop()
            if faults > 1:
                fix = "try later, or another source: the file there is not the one of the list"
                raise WrongBytesError(url, fault, fix)
            log(f"{url}: {fault}; fetched once more from the start")
        part.finish(keep_facts)
    return path


def _filled(part: Part, attempts: Attempts, headers: Mapping[str, str]) -> str:
    """Ask until all bytes are there; what is wrong with them, "" for nothing."""
    wanted = part.wanted
    while wanted.size is None or part.size < wanted.size:
        before = part.size
        try:
            _ask_for_the_rest(part, attempts, headers)
            break
        except AgainError as again:
            attempts.wait(again, progress=part.size > before)
    part.file.flush()
    return wanted.fault(Path(part.file.name))


def _ask_for_the_rest(part: Part, attempts: Attempts, headers: Mapping[str, str]) -> None:
    asked = dict(headers)
    if part.size:
        asked["Range"] = f"bytes={part.size}-"
        if part.validator:
            asked["If-Range"] = part.validator
    with _answer("GET", part.wanted.url, asked, attempts.patience) as response:
        if response.status_code == 416:
            _beyond_the_end(part, response)
            return
        _check(response)
        total = _resumed(part, response) if response.status_code == 206 else _anew(part, response)
        _room(part, total)
        _pour(part, total, response)
        if total is not None and part.size != total:
            raise AgainError(f"the answer ended at {part.size} of {total} bytes")


@contextmanager
def _answer(
    method: str, url: str, headers: Mapping[str, str], patience: Patience
) -> Iterator[Response]:
    """The answer of a server; AgainError for what the network does to it, here and while it is
    read.
    """
    import requests

    own = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    timeout = (patience.connect, patience.read)
    try:
        with requests.request(
            method, url, headers=own | dict(headers), stream=True, timeout=timeout,
            allow_redirects=True,
        ) as response:  # fmt: skip
            yield response
    except (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as error:
        raise AgainError(f"{type(error).__name__} ({_short(error)})") from error
    except requests.RequestException as error:
        raise RefusedError(url, _short(error), "check the address") from error


def _short(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= 160 else f"{text[:156]} ..."


def _check(response: Response) -> None:
    """Raise what an answer without the file means."""
    status = response.status_code
    if status in PASSING:
        raise AgainError(f"HTTP {status}", retry_after(response.headers), busy=status == 429)
    if status not in (200, 206):
        fix = "check the address, and whether it needs a login"
        raise RefusedError(response.url, f"HTTP {status} {response.reason}", fix)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        found = f"bytes in {response.headers['Content-Encoding']}, though none was asked for"
        raise RefusedError(response.url, found, "use another source")


def _told(response: Response) -> tuple[str, str]:
    """ETag and date of a file, "" where the server gives none."""
    return response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")


def _anew(part: Part, response: Response) -> int | None:
    """Begin with the first byte; the size of the file, where the server says it."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    wanted = part.wanted
    if None not in (total, wanted.size) and total != wanted.size:  # such as a page of its own
        raise AgainError(f"an answer of {total} bytes instead of {wanted.size}")
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    if total is None and not chunked and wanted.size is None and wanted.checksum is None:
        found = "the server does not say how long the file is: nobody could tell a half of it"
        raise RefusedError(wanted.url, found, "give its size or checksum")
    part.begin(*_told(response), total)
    return total


def _resumed(part: Part, response: Response) -> int | None:
    """Go on after the bytes that are there; AgainError, and from the start, where the rest is that
    of another file.
    """
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", text.strip())
    if match is None or int(match[1]) != part.size:
        part.drop()
        raise AgainError(f"an answer of other bytes ({text or 'no Content-Range'})")
    total = None if match[2] == "*" else int(match[2])
    known = part.told["total"] or part.wanted.size
    same_place = part.told["url"] == part.wanted.url
    changed = same_place and part.told["etag"] not in ("", response.headers.get("ETag", ""))
    if changed or (None not in (total, known) and total != known):
        part.drop()
        raise AgainError("the file has changed at the server: from the start")
    return total or known


def _beyond_the_end(part: Part, response: Response) -> None:
    """All bytes are there already, or those that are there belong to another file."""
    if response.headers.get("Content-Range", "") != f"bytes */{part.size}":
        part.drop()
        raise AgainError("HTTP 416, the file has become shorter: from the start")


def _room(part: Part, total: int | None) -> None:
    total = total or part.wanted.size or 0
    free = shutil.disk_usage(part.target.parent).free
    if total - part.size > free:
        found = f"{total - part.size} bytes to come, {free} free in {part.target.parent}"
        raise NoSpaceError(part.wanted.url, found, "make room, or choose another disk")


def _pour(part: Part, total: int | None, response: Response) -> None:
    from tqdm import tqdm

    name = part.target.name
    with tqdm(
        desc=name if len(name) <= 40 else f"{name[:37]}...", total=total, initial=part.size,
        unit="B", unit_scale=True, leave=False, disable=None,
    ) as bar:  # fmt: skip
        for chunk in response.iter_content(CHUNK):
            part.file.write(chunk)
            bar.update(len(chunk))


def fetch_json(
    url: str,
    headers: Mapping[str, str] | None = None,
    patience: Patience = PATIENT,
    log: Log = print,
) -> Any:
    """What a server answers in JSON, asked again like a file. Raises RefusedError,
    UnreachableError.
    """
    attempts = Attempts(url, patience, log)
    asked = {"Accept": "application/json", **(headers or {})}
    while True:
        try:
            with _answer("GET", url, asked, patience) as response:
                _check(response)
                return json.loads(response.content)
        except ValueError:
            attempts.wait(AgainError("an answer that is no JSON"), progress=False)
        except AgainError as again:
            attempts.wait(again, progress=False)


def cached(url: str, folder: str | Path, patience: Patience = PATIENT, log: Log = print) -> Path:
    """A file of the web in a folder of files that are fetched once, and again when the server has
    another one; where it cannot be asked, the old one, and a word on it. Raises as `fetch`.
    """
    path = Path(folder) / (url.rpartition("/")[2] or "index")
    facts = hidden(path, "origin.json")
    if path.is_file() and not _changed(url, facts, patience, log):
        return path
    return fetch(url, path, patience=patience, log=log, anew=True, keep_facts=facts)


def _changed(url: str, facts: Path, patience: Patience, log: Log) -> bool:
    try:
        told = json.loads(facts.read_text(encoding="utf-8"))
        if told["url"] != url:
            return True
        with _answer("HEAD", url, {}, patience) as response:
            _check(response)
            etag, modified = _told(response)
    except (OSError, ValueError, KeyError):
        return True  # nothing known of it
    except (AgainError, UnreachableError, FetchError) as error:
        log(f"{url}: not asked whether it has changed ({error}); the one fetched before is used")
        return False
    return (etag, modified) != (told["etag"], told["modified"])
