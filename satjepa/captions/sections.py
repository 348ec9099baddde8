"""One answer with three headings, cut into three captions, and whether they can be taken as such.

A model that was not trained to follow such a request answers with one sentence, leaves a section
out or repeats itself: then the answer is not taken, and each caption is asked for by itself.
"""

from __future__ import annotations

import re

from satjepa.contracts import CAPTION_KINDS, Captions

# A heading at the beginning of a line or after a sentence, bold or numbered as models write it
HEADING = re.compile(
    rf"(?:^|(?<=[\n;!?])|(?<=\.)(?!\d))[\s*#)(_-]*(?:\d+[.)]\s*)?[\s*#_-]*"
    rf"\b({'|'.join(CAPTION_KINDS)})\b[\s*_]*[:–—-][\s*_]*",
    re.IGNORECASE,
)
DISTINCT = 0.4  # share of a section's words that must be different ones: less is a loop
TRIM = " \t\n*#_-–—"


def tidy(answer: str) -> str:
    """An answer in one line, without the marks of a list or of bold print around it."""
    return " ".join(answer.split()).strip(TRIM)


def cut(answer: str) -> Captions | None:
    """The three sections of an answer, in whatever order they stand; None unless each heading is
    there once.
    """
    marks = list(HEADING.finditer(answer))
    kinds = [mark[1].lower() for mark in marks]
    if sorted(kinds) != sorted(CAPTION_KINDS):
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(answer)]
    texts = {
        kind: tidy(answer[mark.end() : end])
        for kind, mark, end in zip(kinds, marks, ends, strict=True)
    }
    return Captions(**texts)


def good(captions: Captions, asked: str, words: tuple[int, int]) -> bool:
    """Whether three sections say something each: as many `words` as wanted (from, to), different
    ones, and not those of the question that was `asked`.
    """
    if len({text.lower() for text in captions}) < len(captions):
        return False
    return all(_says_something(text, asked, words) for text in captions)


def _says_something(text: str, asked: str, words: tuple[int, int]) -> bool:
    spoken = text.lower().split()
    fewest, most = words
    if not fewest <= len(spoken) <= most:
        return False
    if len(set(spoken)) < DISTINCT * len(spoken):
        return False
    return text.lower().rstrip(".") not in asked.lower()
