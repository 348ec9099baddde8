"""The table of forecast captions: its rows, its places, and where its texts come from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from reach import REPO, as_checkout

from satjepa.captions.store import TextStore
from satjepa.captions.writing import caption_patches
from satjepa.config import Params, load_params
from satjepa.contracts import Captions, PatchKey
from satjepa.evaluation import captions
from satjepa.evaluation.captions import caption_table, pooled_embedder, semantic_pairs
from satjepa.metrics.words import caption_scores, tokenise

BEFORE = [
    "a lake with boats on it",
    "forest north and water south of it",
    "grass and a road to the west",
    "farmland with town in the east",
    "a lake with boats on it",
]
CHANGED = {1: "forest north and burnt ground south", 3: "town with a new building site"}
TRUTH = [CHANGED.get(place, text) for place, text in enumerate(BEFORE)]
WORDS = sorted({word for text in BEFORE + TRUTH for word in tokenise(text)})
WRITTEN = [BEFORE[0], CHANGED[1], BEFORE[2], "grass and a road in town", ""]


def counted(texts: list[str]) -> torch.Tensor:
    """Vectors of texts: how often they have each word; each text is asked for once."""
    assert len(set(texts)) == len(texts)
    rows = [[tokenise(text).count(word) for word in WORDS] for text in texts]
    return torch.tensor(rows, dtype=torch.float32)


def test_the_rows_are_the_copy_what_was_written_and_the_truth_on_all_and_on_changed_places():
    table = caption_table(BEFORE, TRUTH, {"written": WRITTEN}, counted)
    names = ["copy of year t", "written", "truth"]
    assert table.index.tolist() == [(p, name) for p in ("all", "changed") for name in names]
    assert table.loc["all", "n"].tolist() == [5, 5, 5]
    assert table.loc["changed", "n"].tolist() == [2, 2, 2]
    assert (table["among"] == 4).all()  # different true captions
    for places, chosen in (("all", range(5)), ("changed", CHANGED)):
        for name, texts in zip(names, (BEFORE, WRITTEN, TRUTH), strict=True):
            known = caption_scores([texts[i] for i in chosen], [TRUTH[i] for i in chosen])
            assert table.loc[(places, name), list(known)].to_dict() == pytest.approx(known)
    best = table.xs("truth", level="captions")
    assert (best[["bleu_4", "rouge_l", "recall_1", "median_rank"]] == 1).all(axis=None)
    assert best["cider"].tolist() == pytest.approx([10, 10])


def test_the_true_caption_is_looked_for_among_all_different_ones():
    """On changed places, too. The fourth text has two words of its true caption and four of
    another; the blank one is as far from each of the four.
    """
    table = caption_table(BEFORE, TRUTH, {"written": WRITTEN}, counted)
    assert table.loc[("all", "written"), "recall_1"] == pytest.approx((1 + 1 + 1 + 0 + 1 / 4) / 5)
    assert table.loc[("all", "written"), "recall_5"] == 1
    assert table.loc[("changed", "written"), "recall_1"] == 1 / 2
    assert table.loc[("changed", "written"), "median_rank"] == 1.5
    assert table.loc[("all", "written"), "median_rank"] == 1


def test_captions_with_one_vector_tie_wherever_they_stand():
    """Encoders cut long texts. Each true caption is the first in half the cases."""
    truth = [f"{'ab'[i % 2]} {i // 2}" for i in range(154)]
    vectors = torch.randn(77, 90, generator=torch.Generator().manual_seed(0))

    def embed(texts: list[str]) -> torch.Tensor:
        return vectors[[int(text.split()[1]) for text in texts]]

    table = caption_table(truth, truth, {}, embed)
    assert table.loc[("all", "truth"), "recall_1"] == 1 / 2


def test_where_nothing_changed_there_is_no_score():
    table = caption_table(TRUTH, TRUTH, {}, counted)
    assert table.loc["changed", "n"].tolist() == [0, 0]
    assert table.loc["changed"].drop(columns=["n", "among"]).isna().all(axis=None)
    assert table.loc[("all", "copy of year t"), "cider"] == pytest.approx(10)


@pytest.mark.parametrize(
    "before, forecasts, message",
    [
        (BEFORE[1:], {}, "copy of year t: 4 captions for 5"),
        (BEFORE, {"written": WRITTEN[:3]}, "written: 3 captions for 5"),
        (BEFORE, {"truth": WRITTEN}, "called 'truth'"),
    ],
)
def test_captions_that_do_not_fit_are_refused(before, forecasts, message) -> None:
    with pytest.raises(ValueError, match=message):
        caption_table(before, TRUTH, forecasts, counted)


def test_no_place_is_refused():
    with pytest.raises(ValueError, match="no captions to score"):
        caption_table([], [], {}, counted)


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The parameters, in a checkout without artifacts."""
    params = load_params(REPO / "params.yaml")
    monkeypatch.chdir(as_checkout(tmp_path))
    return params


class Places:
    """A dataset of one place in two pairs of years, as far as it is asked here."""

    def __len__(self) -> int:
        return 2

    def meta(self, index: int) -> dict[str, str | int]:
        return {"preset": "p", "region": "R", "year": 2020 + index, "x": 64, "y": 0}


def test_semantic_captions_come_in_pairs_of_years(params: Params, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(captions, "dataset", lambda *a, **k: asked.append(a[1:]) or Places())
    image = np.zeros((3, 4, 4), np.float32)
    years = iter((2020, 2021))

    def captioner(rgb: np.ndarray, valid: np.ndarray | None) -> Captions:
        return Captions("i", "g", f"land of {next(years)}")

    def caption(*these: int) -> None:
        images = [(PatchKey("p", "R", year, 64, 0), image, None) for year in these]
        file = captions.captions_file(params)
        caption_patches(images, captioner, file, "rules", 1, progress=False)

    caption(2020, 2021)
    with pytest.raises(ValueError, match=r"no caption of \('p', 'R', 2022, 64, 0\): run"):
        semantic_pairs(params, "val", "p")
    assert asked == [("val", "p")]
    years = iter((2022,))
    caption(2022)
    assert semantic_pairs(params) == (
        ["land of 2020", "land of 2021"],
        ["land of 2021", "land of 2022"],
    )


class Encoders:
    """Encoders that give a text its length as both vectors."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def fingerprint(self) -> str:
        return "lengths"

    def encode(self, texts: list[str], max_length: int, batch: int = 64) -> list:
        self.asked += texts
        return [(torch.ones(1, 2), torch.full((3,), len(text) + 0.001)) for text in texts]


def test_vectors_come_from_the_store_and_of_other_texts_from_the_encoders(
    params: Params, monkeypatch
) -> None:
    TextStore.write(captions.text_folder(params), ["abc"], Encoders(), 48, progress=False)
    encoders = Encoders()
    monkeypatch.setattr(captions, "load_text_encoders", lambda _: encoders)
    embed = pooled_embedder(params)
    assert embed(["abc", ""])[:, 0].tolist() == [3, torch.tensor(0.001).bfloat16().item()]
    assert encoders.asked == []
    assert embed(["abcd", "abc"]).tolist() == [[4, 4, 4], [3, 3, 3]]  # rounded to bfloat16
    assert encoders.asked == ["abcd"]
