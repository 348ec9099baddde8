"""What a model reads of its captions is decided by the captions of its own images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from reach import REPO

from satjepa import assemble
from satjepa.captions.store import TextStore
from satjepa.config import Params, load_params
from satjepa.data.splits import Split

SIDE = 64
YEARS = (2017, 2018)
REGIONS = ("Alpha", "Beta", "Gamma")  # of training, validation, test
# By preset, region and left edge: how many tokens each of the three captions has.
SHOWN = {
    ("strong", "Alpha", 0): (3, 9, 2),
    ("strong", "Beta", 0): (3, 4, 20),
    ("strong", "Gamma", 0): (3, 2, 2),
    ("gentle", "Gamma", 0): (30, 2, 2),  # of the second preset the test regions alone are shown
}
OTHER = {
    ("strong", "Gone", 0): (60, 60, 60),  # a region that is no longer in the data
    ("strong", "Alpha", 32): (60, 2, 2),  # of patches at another place
    ("gentle", "Alpha", 0): (2, 2, 60),
}


class Encoders:
    """A text has as many tokens as it has letters."""

    def fingerprint(self) -> str:
        return "encoders"

    def encode(self, texts: list[str], max_length: int, batch: int) -> list[tuple]:
        return [(torch.zeros(max(len(text), 1), 4), torch.zeros(3)) for text in texts]


def cube(preset: str, region: str) -> xr.Dataset:
    arrays = {
        "rgb": (("year", "band", "y", "x"), np.zeros((2, 3, SIDE, SIDE), "u1")),
        "valid": (("year", "y", "x"), np.ones((2, SIDE, SIDE), bool)),
    }
    return xr.Dataset(arrays, {"year": list(YEARS)}, {"region": region, "preset": preset})


def write(params: Params, counts: dict[tuple, tuple]) -> None:
    """A table with captions of so many tokens, and the store of their embeddings."""
    about = {"captioner": params.captions.captioner, "image": ""}
    about["prompt_version"] = params.captions.prompt_version
    rows = []
    for (preset, region, x), (one, two, three) in counts.items():
        texts = {"informative": "i" * one, "geometric": "g" * two, "semantic": "s" * three}
        place = {"preset": preset, "region": region, "x": x, "y": 0}
        rows += [about | place | texts | {"year": year} for year in YEARS]
    table = assemble.captions_file(params)
    table.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(table)
    texts = {row[kind] for row in rows for kind in ("informative", "geometric", "semantic")}
    TextStore.write(assemble.text_folder(params), texts, Encoders(), 77, progress=False)


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Those of a checkout with three regions of one patch."""
    for name, folder in (("captions_file", "captions.parquet"), ("text_folder", "text")):
        monkeypatch.setattr(assemble, name, lambda params, folder=folder: tmp_path / folder)
    monkeypatch.setattr(assemble, "cubes_of", lambda preset: [cube(preset, r) for r in REGIONS])
    monkeypatch.setattr(assemble, "open_split", lambda: Split("region", 0, *zip(REGIONS)))
    changes = {"data.presets": ["strong", "gentle"], "data.patch": SIDE, "captions.lengths": None}
    return load_params(REPO / "params.yaml", **changes)


def test_rows_of_images_that_are_not_in_the_data_decide_nothing(params: Params) -> None:
    write(params, SHOWN)
    lengths = assemble.with_caption_lengths(params).captions.lengths
    assert lengths == (32, 16, 24)
    write(params, SHOWN | OTHER)
    assert assemble.with_caption_lengths(params).captions.lengths == lengths


def test_lengths_that_are_set_stay(params: Params) -> None:
    captions = params.captions.model_copy(update={"lengths": (8, 8, 8)})
    asked = params.model_copy(update={"captions": captions})
    assert assemble.with_caption_lengths(asked) is asked
