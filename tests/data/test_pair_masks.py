"""What is invalid travels as a mask, is zero, and where it is too much its window is left out."""

import numpy as np
import pytest

from satjepa.data.cube import build_cube
from satjepa.data.pairs import PairDataset
from satjepa.data.scenes import find_scenes
from satjepa.data.splits import SplitPart


def only(sample: str) -> SplitPart:
    return SplitPart("test", "published", frozenset([sample]))


@pytest.fixture
def holed(tmp_path, make):
    """32x32 pixels, three years: half of the lower left window of 2018 is NaN, a corner of the
    upper right of 2017.
    """
    for year in 2017, 2018, 2019:
        values = np.full((3, 32, 32), (year - 2000) / 100, np.float32)
        if year == 2018:
            values[:, 16:, :9] = np.nan
        if year == 2017:
            values[:, :4, 28:] = np.nan
        make.tif(make.rgb_path(tmp_path, "Alpha", year), values)
    return build_cube(find_scenes(tmp_path), tmp_path / "demo" / "Alpha.zarr")


def test_windows_with_little_to_see_are_dropped_and_counted(holed) -> None:
    data = PairDataset([holed], None, 16)
    assert (
        data.dropped == 2
    )  # 9 of 16 columns are holes in 2018, which is t+1 of one pair and t of the other
    assert [(m["year"], m["x"], m["y"]) for m in map(data.meta, range(len(data)))] == [
        (t, x, y) for t in (2017, 2018) for x, y in ((0, 0), (16, 0), (16, 16))
    ]
    assert PairDataset([holed], None, 16, min_valid=0.4).dropped == 0
    with pytest.raises(ValueError, match="1 of them valid in less than 1"):
        PairDataset([holed], only("Alpha/2017/0/16"), 16, min_valid=1)


def test_masks_travel_and_holes_are_zero(holed) -> None:
    sample = PairDataset([holed], None, 32, min_valid=0)[0]
    assert (~sample["valid_t"]).sum() == 16 and (~sample["valid_tp1"]).sum() == 16 * 9
    assert (sample["rgb_tp1"][:, ~sample["valid_tp1"][0]] == 0).all() and sample[
        "rgb_tp1"
    ].isfinite().all()
    assert (sample["rgb_tp1"][:, sample["valid_tp1"][0]] == np.float32(0.18)).all()
    assert (
        not sample["emb_valid"].any() and (sample["emb_tp1"] == 0).all()
    )  # a cube without embeddings


def test_history_with_little_to_see_is_absent(holed) -> None:
    for least, present in ((0.5, True), (0.95, False)):  # 15 of 16 parts are valid in 2017
        data = PairDataset([holed], only("Alpha/2018/16/0"), 16, history=1, min_valid=least)
        assert (
            data[0]["history_valid"].tolist() == [present]
            and bool(data[0]["history"].any()) == present
        )


def test_masked_embeddings_are_zero(tmp_path, make) -> None:
    make.region(tmp_path, "Alpha", [2018, 2019])
    make.emb_path(tmp_path, "Alpha", 2019).unlink()
    sample = PairDataset([build_cube(find_scenes(tmp_path), tmp_path / "a.zarr")], None, 48)[0]
    assert not sample["emb_valid"].any() and (sample["emb_tp1"] == 0).all()
