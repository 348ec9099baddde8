"""How long a server is waited for, and how often it is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from satjepa.region.fetch_errors import UnreachableError


@dataclass(frozen=True)
class Patience:
    """tries: failures in a row, without one new byte, before a file is given up. first, longest:
    seconds of the first pause and of the longest, each twice the one before. limit: seconds, in
    all, that a server may make us wait by its own word. connect, read: timeouts in seconds.
    """

    tries: int = 6
    first: float = 1.0
    longest: float = 60.0
    limit: float = 3600.0
    connect: float = 10.0
    read: float = 60.0


class AgainError(Exception):
    """Not this time: why, and, where the server said so, after how many seconds to ask again."""

    def __init__(self, why: str, seconds: float | None = None, busy: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.seconds = seconds
        self.busy = busy


class Attempts:
    """Counts the failures of one file and waits between them."""

    def __init__(self, url: str, patience: Patience, log: Callable[[str], None]) -> None:
        self.url = url
        self.patience = patience
        self.log = log
        self.failures = 0
        self.waited = 0.0

    def wait(self, again: AgainError, progress: bool) -> None:
        """Pause before the next try; UnreachableError where patience is at its end.

        A server that says it is busy (429) is waited for, as long as it asks, up to the limit; it
        counts as no failure. `progress`: new bytes came, and the count begins anew.
        """
        patience = self.patience
        self.failures = 1 if progress else self.failures + 1
        pause = min(patience.first * 2 ** (self.failures - 1), patience.longest)
        if again.seconds is not None:
            pause = again.seconds
        told = again.busy or again.seconds is not None
        if told:
            self.waited += pause
            spent = self.waited > patience.limit
        else:
            spent = self.failures >= patience.tries
        if spent:
            tries = f"{self.failures} tries" if not told else f"{self.waited:.0f} s of waiting"
            fix = "try later: the same command goes on where this one stopped"
            raise UnreachableError(self.url, f"{again.why}, after {tries}", fix)
        self.log(f"{self.url}: {again.why}; once more in {pause:.0f} s")
        time.sleep(pause)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; None where it holds
    neither.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, IndexError):
        return None
