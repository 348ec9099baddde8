"""The captions that lie ready for a tile, in the table of the pipeline or as JSON files."""

import json
from pathlib import Path

import numpy as np
import pytest

from satjepa.captions.rules import caption
from satjepa.captions.writing import caption_patches
from satjepa.contracts import Captions, PatchKey
from satjepa.data.grid import Turn
from satjepa.data.stack import ForecastError
from satjepa.published.found_captions import Captioned, find_captions, place_of, stored_in

THREE = Captions("Forest 50 percent.", "One river.", "A forest by a river.")
OTHER = Captions("Town 50 percent.", "Many roads.", "A town.")


def test_captions_of_the_pipeline_are_found(tmp_path: Path) -> None:
    rgb = np.full((3, 64, 64), 0.3, np.float32)
    mask = np.ones((64, 64), bool)
    keys = [PatchKey("strong", "Aland", year, x, 0) for year in (2020, 2021) for x in (0, 64)]
    captioner = lambda image, valid: caption(image, valid, encoding="display")  # noqa: E731
    patches = [(key, rgb, mask) for key in keys]
    caption_patches(patches, captioner, tmp_path / "captions.parquet", "rules", 1, progress=False)
    found = find_captions(tmp_path, "Aland", 2021)
    assert found == dict.fromkeys([(0, 0), (64, 0)], captioner(rgb, mask))
    (tmp_path / "Aland_2021.json").write_text(json.dumps(THREE._asdict()))
    assert find_captions(tmp_path, "Aland", 2021)[None] == THREE


def test_how_far_captions_can_be_missing(tmp_path: Path) -> None:
    (tmp_path / "Aland_2021_x0_y0.json").write_text("not json")
    with pytest.raises(ForecastError, match="expected a JSON object"):
        find_captions(tmp_path, "Aland", 2021)
    with pytest.raises(ForecastError, match=r"expected Aland_2020_x0000_y0000\.json"):
        find_captions(tmp_path, "Aland", 2020)


@pytest.mark.parametrize("region", ["field [1]", "a*b?", "{x}", "100%", "São Tomé"])
def test_a_name_is_taken_literally(tmp_path: Path, region: str) -> None:
    tif = Path(f"{region}_2021.tif")
    name, year = place_of(tif)
    (tmp_path / f"{name}_{year}_x0064_y0000.json").write_text(json.dumps(THREE._asdict()))
    (tmp_path / f"{name}_{year}.json").write_text(json.dumps(OTHER._asdict()))
    (tmp_path / "field 1_2021_x0000_y0000.json").write_text(json.dumps(OTHER._asdict()))
    assert find_captions(tmp_path, name, year) == {(64, 0): THREE, None: OTHER}


def test_a_tile_without_a_year_has_captions_too(tmp_path: Path) -> None:
    (tmp_path / "field.json").write_text("\ufeff" + json.dumps(THREE._asdict()), "utf-8")
    assert find_captions(tmp_path, "field", None) == {None: THREE}
    (tmp_path / "bad.json").write_text(json.dumps(THREE._asdict() | {"semantic": None}))
    with pytest.raises(ForecastError, match="expected a JSON object with the texts"):
        find_captions(tmp_path, "bad", None)


def test_captions_of_a_turned_tile_are_of_the_patch_in_the_file(tmp_path: Path) -> None:
    """The file is south-up, 100 rows of 70 columns: what is forecast first, its north, lies in its
    last rows. The table of the pipeline is of the upright cube, JSON files are of the file.
    """
    south_up = stored_in(Turn(False, True, False), 64, 100, 70)
    assert south_up(6, 0) == (6, 36) and south_up(6, 36) == (6, 0)
    for key, texts in (("x0006_y0036", THREE), ("x0006_y0000", OTHER)):
        (tmp_path / f"a_2021_{key}.json").write_text(json.dumps(texts._asdict()))
    places = find_captions(tmp_path, "a", 2021, south_up)
    reader = Captioned(None, places, None, south_up)
    assert reader.at(6, 0) == THREE and reader.at(6, 36) == OTHER
    (tmp_path / "table").mkdir()
    image = [(PatchKey("p", "a", 2021, 6, 0), np.zeros((3, 64, 64), np.float32), None)]
    table = tmp_path / "table/captions.parquet"
    caption_patches(image, lambda rgb, valid: THREE, table, "rules", 1, progress=False)
    assert find_captions(tmp_path / "table", "a", 2021, south_up) == {(6, 36): THREE}
