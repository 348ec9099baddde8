"""Do sentence and picture agree, and do words steer? On pictures that are drawn by hand."""

import math

import numpy as np
import pytest
import torch
from drawings import COLOURS, SIDE, drawn

from satjepa.captions.grammar import QUARTERS, claims, edited, parsed
from satjepa.evaluation import steering
from satjepa.evaluation.led import agreement, overlap, seen
from satjepa.evaluation.steering import Edit
from satjepa.pipeline import futures

PLAIN = "Forest. " + ", ".join(f"{q} forest" for q in QUARTERS).capitalize() + "."
PLAIN += " No sign of change."


def test_the_caption_of_a_drawing_is_what_was_drawn():
    """What the other tests here stand on."""
    image = drawn(northeast="yellow crops")
    assert seen(image[None, None]) == [[edited(PLAIN, "northeast", "yellow crops")]]


def test_overlap_is_what_both_claim_of_what_either_does():
    one = claims(PLAIN)
    other = claims(edited(PLAIN, "northeast", "grass"))
    assert overlap(one, one) == 1 and overlap(one, other) == pytest.approx(3 / 5)
    assert overlap(one, frozenset()) == 0
    assert math.isnan(overlap(frozenset(), frozenset()))


def test_a_picture_agrees_with_its_own_sentence_or_with_anothers():
    quarters = ("northeast", "southwest")
    pictures = torch.stack([drawn(**{q: "yellow crops"}) for q in quarters])[:, None]
    said = [[edited(PLAIN, q, "yellow crops")] for q in quarters]
    right = agreement(pictures, said)
    assert right["own"] == 1 and right["other"] == pytest.approx(2 / 6)
    assert (right["own_wins"], right["pairs"]) == (1, 2)
    swapped = agreement(pictures, said[::-1])
    assert swapped["own_wins"] == 0 and swapped["other"] == 1
    same = agreement(pictures, [said[0], said[0]])
    assert same["pairs"] == 0 and math.isnan(same["own"]) and math.isnan(same["own_wins"])
    deaf = agreement(pictures[:1].expand(2, -1, -1, -1, -1), [[said[0][0]], [PLAIN]])
    assert deaf["own_wins"] == 0.5, "one picture for two sentences: none is better"


def test_the_sentence_of_another_place_is_a_control():
    pictures = torch.stack([drawn(northeast="yellow crops"), drawn()])[None]
    said = [[edited(PLAIN, "northeast", "yellow crops"), PLAIN]]
    assert agreement(pictures, said)["elsewhere"] == pytest.approx(3 / 5)


def test_edits_ask_for_what_is_not_said():
    rng = np.random.default_rng(0)
    edits = steering.draw_edits(PLAIN, 30, rng)
    assert len(set(edits)) == 30 and not set(map(tuple, edits)) & claims(PLAIN)
    for _ in range(20):
        away = steering.another(PLAIN, edits[0], rng)
        assert away.quarter != edits[0].quarter and away.cover != edits[0].cover


@pytest.mark.parametrize("quarter", QUARTERS)
def test_what_is_looked_for_is_looked_for_in_its_quarter(quarter: str):
    image = drawn(**{quarter: "yellow crops"})
    share, claimed = steering.covered(image, Edit(quarter, "yellow crops"))
    assert share > 0.9 and claimed
    for other in set(QUARTERS) - {quarter}:
        share, claimed = steering.covered(image, Edit(other, "yellow crops"))
        assert share < 0.1 and not claimed
    assert steering.changed_elsewhere(image, drawn(), quarter) == 0
    elsewhere = next(q for q in QUARTERS if q != quarter)
    changed = steering.changed_elsewhere(image, drawn(), elsewhere)
    gap = np.abs(np.subtract(COLOURS["yellow crops"], COLOURS["forest"])).mean()
    assert changed == pytest.approx(gap / 3, rel=1e-5)


class Obedient:
    """Draws what the first edit of its caption says, whatever the noise, where it listens."""

    def __init__(self, hears: bool = True) -> None:
        self.hears = hears
        self.asked: list[dict] = []

    def forecast(self, batch: dict, samples: int, seed: int, first: int = 0) -> torch.Tensor:
        self.asked.append({"first": first, "hidden": batch.get("hidden_quarters")})
        images = []
        for code in batch["text_given"]["code"][:, 2]:
            said = parsed(TEXTS[int(code)]).quarters
            new = {q: c[0] for q, c in said.items() if c[0] in COLOURS and c != ("forest",)}
            images.append(drawn(**new) if self.hears else drawn())
        return torch.stack(images)[None]


TEXTS: list[str] = []


def embed(three):
    for texts in three:
        TEXTS.extend(text for text in texts if text not in TEXTS)
    codes = torch.tensor([[TEXTS.index(text) for text in texts] for texts in three])
    return {"code": codes, "mask": torch.ones(*codes.shape, 2, dtype=torch.bool)}


def batch():
    return {"rgb_t": torch.zeros(1, 3, SIDE, SIDE), "meta": [{"region": "R"}],
            "text_t": {"mask": torch.ones(1, 3, 2)}}  # fmt: skip


def test_one_who_listens_is_told_from_one_who_does_not(monkeypatch):
    monkeypatch.setattr(steering, "NAMED", ("green crops", "yellow crops"))
    for hears, moved in ((True, 1.0), (False, 0.5)):
        rng = np.random.default_rng(1)
        joint = Obedient(hears)
        rows = steering.steer_place(joint, batch(), PLAIN, embed, rng, 3)
        table = steering.summary(rows)
        assert table.index.tolist() == ["edit", "no edit", "random edit"]
        assert (table["n"] == 3).all()
        assert table.loc["edit", "moved"] == moved and table.loc["edit", "claimed"] == hears
        assert table.loc["no edit", ["moved", "gain", "elsewhere"]].tolist() == [0.5, 0, 0]
        assert table.loc["random edit", "claimed"] == 0
        assert (table.loc["edit", "gain"] > 0.9) == hears
        assert [one["first"] for one in joint.asked] == [0, 0, 1, 0]
        assert all(one["hidden"] is None for one in joint.asked)


def test_the_edited_quarter_is_hidden_in_all_pictures_of_an_edit(monkeypatch):
    monkeypatch.setattr(steering, "NAMED", ("green crops", "yellow crops"))
    joint = Obedient()
    rows = steering.steer_place(
        joint, batch(), PLAIN, embed, np.random.default_rng(1), 2, hide=True
    )
    quarters = [row["quarter"] for row in rows if row["case"] == "edit"]
    assert len(quarters) == 2 and len(joint.asked) == 4
    for one in joint.asked:
        assert one["hidden"].sum(1).tolist() == [1, 1]
        assert [QUARTERS[i] for i in one["hidden"].int().argmax(1)] == quarters


def test_futures_of_a_place_are_told_and_shown():
    edits = (Edit("northeast", "yellow crops"), Edit("northwest", "forest"))
    told = futures.told(PLAIN, edits)
    assert told == {"yellow crops northeast": edited(PLAIN, "northeast", "yellow crops")}
    table = futures.shown(
        drawn(), {"yellow crops northeast": drawn(northeast="yellow crops")}, edits
    )
    row = table.loc["yellow crops northeast"]
    assert row["before"] < 0.1 and row["after"] > 0.9
    assert row["the caption by rule says"] == "yellow crops"
    members = torch.stack([drawn(northeast="yellow crops"), drawn()])
    both = futures.agreeing(members, [*told.values(), PLAIN])
    assert both.loc["picture 1"].tolist() == [1, pytest.approx(3 / 5)]
    assert both.loc["picture 2", "sentence 2"] == 1
