"""The semantic caption as a grammar: what the rules write is read back, and nothing else is."""

import numpy as np
import pytest

from satjepa.captions.grammar import STILL, claims, edited, parsed, share_parsed
from satjepa.captions.rules import caption

TEXT = (
    "Forest with farmland. Northwest forest and grass, northeast water, southwest no data, "
    f"southeast dry trees. {STILL}"
)
SIGNS = TEXT.replace(STILL, "Change: clearing northwest, dry trees southeast.")


@pytest.mark.parametrize("seed", range(12))
def test_what_the_rules_write_is_read_and_written_again(seed: int):
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0.08, 0.15, 0.2, 0.3, 0.45, 0.6], (3, 4, 4)).astype(np.float32)
    image = np.kron(coarse, np.ones((1, 16, 16), np.float32))
    image[:, :32, :32] *= seed % 3 > 0  # without data
    text = caption(image, None, "display").semantic
    said = parsed(text)
    assert said is not None, text
    assert said.text() == text


def test_what_a_caption_says_is_told_apart():
    said = parsed(SIGNS)
    assert said.groups == ("forest", "farmland")
    assert said.quarters == {
        "northwest": ("forest", "grass"),
        "northeast": ("water",),
        "southwest": (),
        "southeast": ("dry trees",),
    }
    assert said.signs == ("clearing northwest", "dry trees southeast")
    assert claims(SIGNS) == {
        ("northwest", "forest"),
        ("northwest", "grass"),
        ("northeast", "water"),
        ("southeast", "dry trees"),
    }
    assert parsed("No data.").text() == "No data." and claims("No data.") == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Forest.",
        TEXT[:-1],
        TEXT.lower(),
        TEXT.replace("northeast water, ", ""),
        TEXT.replace("water", "lava"),
        TEXT.replace("forest and grass", "grass and grass"),
        TEXT.replace("with farmland", "with forest"),
        TEXT + " And more.",
        SIGNS.replace("clearing northwest", "clearing"),
    ],
)
def test_another_form_is_not_taken_for_it(text: str):
    assert parsed(text) is None
    assert claims(text) == frozenset()


def test_the_share_of_captions_that_have_the_form():
    assert share_parsed([TEXT, SIGNS, "Forest.", ""]) == 0.5
    assert np.isnan(share_parsed([]))


def test_an_edit_changes_a_quarter_and_what_the_place_is():
    new = edited(SIGNS, "northwest", "buildings")
    assert new == SIGNS.replace("forest and grass", "buildings").replace(
        "with farmland", "with farmland and town"
    )
    assert edited(TEXT, "southwest", "grass") == TEXT.replace("no data", "grass")
    with pytest.raises(ValueError, match="quarter 'north': there are northwest, "):
        edited(TEXT, "north", "grass")
    with pytest.raises(ValueError, match="cover 'lava': there are water, "):
        edited(TEXT, "southwest", "lava")
    with pytest.raises(ValueError, match=r"not a semantic caption by rule: 'Forest\.'"):
        edited("Forest.", "southwest", "grass")
