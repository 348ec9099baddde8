"""Answers of a catalog's server, asked for again where they did not come whole."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from satjepa.region.errors import ServerError

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

TRIES = 8  # with a minute between the first and the last
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer
PASSING = (408, 425, 429, 500, 502, 503, 504)  # states of a server that pass
LONGEST_WAIT = 120.0  # seconds that a server may ask to be left alone
AGENT = {"User-Agent": "satjepa (https://github.com/satjepa/satjepa)"}


def patience(attempt: int, asked: float | None = None) -> float:
    """Seconds to wait after a failed attempt (0, 1, ...): what the server asked for, else half a
    second, doubled each time.
    """
    return min(0.5 * 2**attempt if asked is None else asked, LONGEST_WAIT)


def patient_io(wait: Callable[[float], None] = time.sleep) -> StacApiIO:
    """What pystac-client reads with, except that every request, a search by POST too, is made
    again after 429 (when the server says), 5xx, a broken connection, half an answer or one that
    is no JSON. Raises ServerError after TRIES of them, and at once for other states, as 404.
    """
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO

    class PatientIO(StacApiIO):
        """As described above."""

        asked: float | None = None  # seconds, by the last answer

        def remember(self, answer: Any, *_: Any, **__: Any) -> None:
            text = answer.headers.get("Retry-After", "")
            self.asked = float(text) if text.isdigit() else None

        def request(self, href: str, *args: Any, **kwargs: Any) -> str:
            for attempt in range(TRIES):
                self.asked = None
                try:
                    text = super().request(href, *args, **kwargs)
                    json.loads(text)
                    return text
                except APIError as error:
                    state = getattr(error, "status_code", None)
                    said = f"answered {state}" if state else _short(error)
                except ValueError:
                    state = None
                    said = f"answered something else than JSON ({text[:40]!r})"
                if state and state not in PASSING:
                    break
                if attempt + 1 < TRIES:
                    wait(patience(attempt, self.asked))
            raise ServerError(_failed(href, said, attempt + 1))

    client = PatientIO(headers=AGENT, timeout=TIMEOUT, max_retries=None)
    client.session.hooks["response"].append(client.remember)
    return client


def read_json(url: str, wait: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """The JSON object at a URL, as patiently. Raises ServerError."""
    return json.loads(patient_io(wait).request(url))


def _failed(href: str, said: str, tries: int) -> str:
    times = f", {tries} times" if tries > 1 else ""
    again = (
        "try again later; what was fetched is kept"
        if tries > 1
        else "look at the address and the name"
    )
    return f"{href.split('?')[0]}: {said}{times}: {again}"


def _short(error: Exception) -> str:
    """The last words of a connection's error, which wraps others."""
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else f"{text[:60]} ... {text[-90:]}"
