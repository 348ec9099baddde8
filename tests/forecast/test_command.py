"""`satjepa forecast`: the example, the picture, the truth, and which model and files are meant."""

from pathlib import Path

import pytest
import rasterio
from reach import REPO
from shades import Joint
from stand_ins import pixels, write
from typer.testing import CliRunner, Result

from satjepa import cli
from satjepa.demo import example
from satjepa.forecast import load as module
from satjepa.forecast.load import Model
from satjepa.training import checkpoint


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a model that needs no weights."""
    monkeypatch.setenv("SATJEPA_PARAMS", str(REPO / "params.yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "exists", lambda folder: True)
    monkeypatch.setattr(
        module, "load", lambda folder, **_: Model(Path(folder), "0123456789ab", Joint(), None)
    )
    return tmp_path


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, ["forecast", *(str(word) for word in words)])


def test_the_example_is_forecast_drawn_and_compared(here: Path) -> None:
    result = run("--example", "--samples", 2)
    assert result.exit_code == 0, result.output
    with rasterio.open(here / "forecast_2023.tif") as out:
        assert out.shape == (example.SIDE, example.SIDE) and out.tags()["YEAR"] == "2023"
        assert out.tags()["INPUTS"].count("Brannoch") == 2  # this model has a history of one year
    assert (here / "forecast_2023.png").read_bytes().startswith(b"\x89PNG")
    for text in (
        "Brannoch/*.tif --truth ",
        "truth/s2_rgb_Brannoch_2023_10km.tif",
        "6 steps from pure noise, strict zero-RGB; guidance 1.25",
        "wrote forecast_2023.tif: forecast of year 2023",
        "wrote forecast_2023.png",
        "against s2_rgb_Brannoch_2023_10km.tif: PSNR ",
    ):
        assert text in result.output, result.output


def test_what_it_says_to_type_does_the_same(here: Path) -> None:
    said = run("--example", "--samples", 1).output.splitlines()[0]
    pattern, truth = said.removeprefix("example: satjepa forecast ").split(" --truth ")
    images = sorted(Path("/").glob(pattern.removeprefix("/")))
    assert [images, Path(truth)] == list(example.shipped_scene())


def test_the_picture_lies_beside_the_forecast_unless_told_otherwise(here: Path) -> None:
    image = write(here / "a_2021.tif", pixels(1))
    assert run(image, "--samples", 1).exit_code == 0
    assert sorted(path.name for path in here.iterdir()) == [
        "a_2021.tif",
        "forecast_2022.png",
        "forecast_2022.tif",
    ]
    assert run(image, "--samples", 1, "--out", "b.tif", "--no-picture").exit_code == 0
    assert (here / "b.tif").exists() and not (here / "b.png").exists()
    assert run(image, "--samples", 1, "--out", "c.tif", "--picture", "d.png").exit_code == 0
    assert (here / "d.png").exists() and not (here / "c.png").exists()
    unknown = write(here / "field.tif", pixels(1))
    assert "wrote forecast_next_year.tif" in run(unknown, "--samples", 1).output


def test_a_folder_holds_files_for_a_map_and_what_they_are(here: Path) -> None:
    image = write(here / "a_2021.tif", pixels(1))
    result = run(image, "--samples", 2, "--out", "out", "--members")
    assert "wrote 5 files in out: forecast of year 2022, mean, spread and members" in result.output
    names = ["forecast_2022.json", "forecast_2022.png", "forecast_2022.tif", "index.html"]
    names += ["member_1_2022.tif", "member_2_2022.tif"]
    assert sorted(path.name for path in (here / "out").iterdir()) == names
    with rasterio.open(here / "out/member_2_2022.tif") as member, rasterio.open(image) as last:
        assert member.count == 3 and member.read(1)[0, 0] == pytest.approx(
            last.read(1)[0, 0] - 2.55, abs=0.01
        )
    assert run(image, "--samples", 1, "--out", "out", "--no-picture").exit_code == 0


def test_scenes_of_a_data_set_are_forecast_each_to_its_folder(here: Path) -> None:
    for region, year in (("Ost", 2020), ("Ost", 2021), ("West", 2019)):
        (here / "data" / region).mkdir(parents=True, exist_ok=True)
        write(here / f"data/{region}/s2_rgb_{region}_{year}_10km.tif", pixels(year))
    result = run("--scenes", "data", "--out", "done", "--samples", 1, "--no-picture")
    assert result.exit_code == 0, result.output
    found = sorted(str(path.relative_to(here)) for path in (here / "done").rglob("*.*"))
    assert found == [
        "done/Ost/forecast_2022.json",
        "done/Ost/forecast_2022.tif",
        "done/West/forecast_2020.json",
        "done/West/forecast_2020.tif",
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "name images, oldest first, or pass --example"),
        (("a_2021.tif", "--example"), "name images, oldest first, or pass --example"),
        (("a_2021.tif", "--picture", "a_2021.tif"), "a_2021.tif is one of the images"),
        (("a_2021.tif", "--out", "b.png"), "b.png cannot be both"),
        (("a_2021.tif", "--members"), "name a folder (--out DIR)"),
        (("a_2021.tif", "--scenes", "."), "or --scenes DIR"),
        (("--scenes", ".", "--year", 2021), "--year are of one scene"),
        (("--scenes", "."), "no <Region>/s2_rgb_<Region>_<YEAR>_10km.tif"),
        (("--example", "--truth", "a_2021.tif"), "the forecast is of 2023"),
        (("a_2021.tif", "--truth", "a_2021.tif"), "the forecast is of 2022"),
        (("a_2021.tif", "--truth", "gone_2022.tif"), "gone_2022.tif"),
        (("a_2021.tif", "--truth", "small_2022.tif"), "small_2022.tif"),
    ],
)
def test_what_a_user_can_mend_is_told_before_the_work(
    words: tuple, text: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load", lambda *_, **__: pytest.fail("loaded"))
    write(here / "a_2021.tif", pixels(1))
    write(here / "small_2022.tif", pixels(1, 40, 40))
    result = run(*words)
    assert result.exit_code == 2 and text in " ".join(result.output.split()), result.output
    assert "Traceback" not in result.output
    assert len(list(here.iterdir())) == 2


def test_where_the_example_is_missing_it_says_how_to_get_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "SHIPPED", "assets/gone")
    result = run("--example")
    assert result.exit_code == 2 and "python -m satjepa.demo.example" in result.output
