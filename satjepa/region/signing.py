"""Tokens that open the files of a catalog for some minutes, fetched when a file is read."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from satjepa.region.http import read_json

SPARE = 120.0  # seconds before its end at which a token is renewed


class Signer:
    """Adds a token to the hrefs of http(s) files; does nothing where there is no `url` that gives
    tokens. Threads may share one.
    """

    def __init__(self, url: str | None, wait: Callable[[float], None] = time.sleep) -> None:
        self.url = url
        self.wait = wait
        self.token = ""
        self.until = 0.0  # seconds since 1970
        self.lock = threading.Lock()

    def sign(self, href: str) -> str:
        """The href with a token that is good for a while. Raises ServerError."""
        if self.url is None or not urlsplit(href).scheme.startswith("http"):
            return href
        with self.lock:
            if time.time() > self.until - SPARE:
                answer = read_json(self.url, self.wait)
                self.token = answer["token"]
                expiry = answer["msft:expiry"].replace("Z", "+00:00")
                self.until = datetime.datetime.fromisoformat(expiry).timestamp()
            return f"{href}{'&' if '?' in href else '?'}{self.token}"

    def refused(self, href: str) -> None:
        """To be told when a signed href was refused: the next one gets a new token, unless
        another thread has fetched one since.
        """
        with self.lock:
            if self.token and self.token in href:
                self.until = 0.0
