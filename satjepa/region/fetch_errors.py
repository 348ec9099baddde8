"""What can go wrong when a file is fetched, one class for each kind."""

from __future__ import annotations


class FetchError(Exception):
    """A file that was not fetched: its `url`, what was `found`, how to `fix` it."""

    def __init__(self, url: str, found: str, fix: str) -> None:
        super().__init__(url, found, fix)  # all in args, so that it can be pickled
        self.url = url
        self.found = found
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.url}: {self.found}. To fix: {self.fix}"


class RefusedError(FetchError):
    """The server will not give the file: no such file, no permission, no such address."""


class UnreachableError(FetchError):
    """The server did not answer, or not with what was asked for, after all tries."""


class WrongBytesError(FetchError):
    """The file arrived completely, twice, and is not the one that was promised."""


class BusyError(FetchError):
    """Another process is fetching the same file to the same place."""


class NoSpaceError(FetchError):
    """The disk has no room for what is to be fetched."""
