"""Word stems (Porter 1980, "An algorithm for suffix stripping"), with the small extensions that NLTK makes by default.

Only the published caption metrics need them: their ROUGE-L compares stems.
"""

import re
from functools import cache

IRREGULAR = {
    "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "innings": "inning", "outings": "outing",
    "cannings": "canning",
}  # fmt: skip
IRREGULAR |= {w: w for w in ("sky", "news", "inning", "outing", "canning", "howe", "proceed", "exceed", "succeed")}
STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
    "fulli": "ful",
}  # fmt: skip
STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
STEP_4 = ("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate",
          "iti", "ous", "ive", "ize")  # fmt: skip


@cache
def stem(word: str) -> str:
    """The stem of a lower-case word; one of two letters or fewer stays as it is."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _step_1(word)
    word = _step_2(word)
    if (suffix := _longest(word, STEP_3)) and _measure(word.removesuffix(suffix)) > 0:
        word = word.removesuffix(suffix) + STEP_3[suffix]
    if suffix := _longest(word, STEP_4):
        base = word.removesuffix(suffix)
        word = base if _measure(base) > 1 and (suffix != "ion" or base[-1] in "st") else word
    if word.endswith("e") and (_measure(word[:-1]) > 1 or (_measure(word[:-1]) == 1 and not _short_end(word[:-1]))):
        word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _shape(word: str) -> str:
    """A letter a letter: v for a vowel (y after a consonant is one), c for a consonant."""
    shape = ""
    for i, letter in enumerate(word):
        shape += "v" if letter in "aeiou" or (letter == "y" and i > 0 and shape[i - 1] == "c") else "c"
    return shape


def _measure(word: str) -> int:
    """Porter's m: how often a consonant follows a vowel."""
    return _shape(word).count("vc")


def _short_end(word: str) -> bool:
    """Ends as consonant, vowel, consonant other than w, x, y; or is a vowel and a consonant, and no more."""
    shape = _shape(word)
    return (shape.endswith("cvc") and word[-1] not in "wxy") or shape == "vc"


def _longest(word: str, suffixes: dict[str, str] | tuple[str, ...]) -> str:
    """The longest of the suffixes that the word ends with, or nothing."""
    return max((suffix for suffix in suffixes if word.endswith(suffix)), key=len, default="")


def _step_1(word: str) -> str:
    """Plurals, past tenses and -ing, then y to i."""
    if word.endswith("ies"):
        word = word[:-1] if len(word) == 4 else word[:-2]
    elif word.endswith("sses"):
        word = word[:-2]
    elif re.search("[^s]s$", word):
        word = word[:-1]
    if word.endswith("ied"):
        word = word[:-1] if len(word) == 4 else word[:-2]
    elif word.endswith("eed"):
        word = word[:-1] if _measure(word[:-3]) > 0 else word
    elif (found := re.fullmatch("(.*?)(ed|ing)", word)) and "v" in _shape(found[1]):
        word = found[1]
        if word.endswith(("at", "bl", "iz")) or (_measure(word) == 1 and _short_end(word)):
            word += "e"
        elif word[-1] == word[-2:-1] and _shape(word)[-1] == "c" and word[-1] not in "lsz":
            word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") and len(word) > 2 and _shape(word)[-2] == "c" else word


def _step_2(word: str) -> str:
    """Double suffixes to single ones; -alli is looked at again when it has become -al."""
    if word.endswith("logi"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    suffix = _longest(word, STEP_2)
    if not suffix or _measure(word.removesuffix(suffix)) == 0:
        return word
    shorter = word.removesuffix(suffix) + STEP_2[suffix]
    return _step_2(shorter) if suffix == "alli" else shorter
