"""The card's inference command: native resolution, captions that are found, years on, and as
published.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from published_files import content, saved
from typer.testing import CliRunner, Result

from satjepa import assemble, cli
from satjepa.config import load_params
from satjepa.contracts import Captions
from satjepa.data.splits import Split
from satjepa.published import card as api
from satjepa.published import inference, job
from satjepa.published.inference import (
    Captioned,
    Settings,
    find_captions,
    held_out,
    place_of,
    run_inference,
)

REPO = Path(__file__).resolve().parents[2]
HEIGHT = 70
WIDTH = 100
THREE = Captions("Forest 50 percent.", "One river.", "A forest by a river.")
OTHER = Captions("Town 50 percent.", "Many roads.", "A town.")


def tile(path: Path, seed: int = 0, dtype: str = "uint8", shift: float = 0.0) -> Path:
    """A tile of coarse blocks with some noise, larger than one patch of 64 pixels in one direction
    or both.
    """
    rng = np.random.default_rng(seed)
    values = (
        0.2
        + 0.5 * rng.random((3, 7, 10)).repeat(10, 1).repeat(10, 2)
        + 0.02 * rng.random((3, HEIGHT, WIDTH))
    )
    data = (255 * values).astype(np.uint8) if dtype == "uint8" else (values / 4).astype(np.float32)
    where = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 3e5 + shift, 0, -10, 5e6)}
    shape = {"count": 3, "height": HEIGHT, "width": WIDTH, "dtype": data.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **where) as dst:
        dst.write(data)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(content(optimizer=False), tmp_path_factory.mktemp("file") / "a.pth.tar")


@pytest.fixture(scope="module")
def model(file: Path):
    return api.load_model(file)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return tile(tmp_path / "s2_rgb_Aland_2021_10km.tif")


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, ["inference", *map(str, words)])


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read()


def test_the_card_s_command_writes_forecast_picture_and_scores(
    file: Path, scene: Path, tmp_path: Path
) -> None:
    truth = tile(tmp_path / "s2_rgb_Aland_2022_10km.tif", seed=1)
    args = (
        "--checkpoint",
        file,
        "--output_dir",
        tmp_path / "out",
        "--diffusion_steps",
        2,
        "--noise_strength",
        0.35,
    )
    result = run(*args, "--input_tif", scene, "--gt_tif", truth)
    assert result.exit_code == 0, result.output
    assert "from noise 0.35 in 2 steps, at its own resolution" in result.output
    out = tmp_path / "out" / "s2_rgb_Aland_2021_10km_2022.tif"
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        out.name,
        "s2_rgb_Aland_2021_10km_metrics.json",
        "s2_rgb_Aland_2021_10km_panel.png",
    ]
    with rasterio.open(out) as dst, rasterio.open(scene) as src:
        assert (dst.shape, dst.crs, dst.transform, dst.count) == (
            src.shape,
            src.crs,
            src.transform,
            6,
        )
        tags = dst.tags()
        forecast = dst.read()[:3] / 255
    assert (tags["YEAR"], tags["STEPS"], tags["STRENGTH"], tags["AS_PUBLISHED"]) == (
        "2022",
        "2",
        "0.35",
        "False",
    )
    report = json.loads((tmp_path / "out" / names[1]).read_text())
    assert report["settings"]["steps"] == 2 and report["settings"]["white"] == 1.0
    (row,) = report["years"]
    assert row["year"] == "2022" and row["file"] == out.name
    difference = np.abs(forecast - read(truth) / 255.0)
    assert row["forecast"]["l1"] == pytest.approx(difference.mean(), abs=1e-4)
    assert row["persistence"]["l1"] == pytest.approx(
        np.abs(read(scene) / 255.0 - read(truth) / 255.0).mean(), abs=1e-4
    )
    assert row["forecast"].keys() == {"l1", "psnr", "ssim"}
    again = run(*args[:2], "--output", tmp_path / "b", *args[4:], "--input", scene)
    assert again.exit_code == 0 and np.array_equal(read(tmp_path / "b" / out.name), read(out))


def test_years_follow_one_from_the_other(model: object, scene: Path, tmp_path: Path) -> None:
    truths = [tile(tmp_path / f"truth_{year}.tif", seed=year) for year in (2022, 2023)]
    report = json.loads(
        run_inference(
            model, scene, tmp_path / "o", Settings(1, multi_step=3), truths, log=str
        ).read_text()
    )
    files = [tmp_path / "o" / row["file"] for row in report["years"]]
    assert [row["year"] for row in report["years"]] == ["2022", "2023", "2024"]
    assert ["forecast" in row for row in report["years"]] == [True, True, False]
    first = read(files[0])[:3] / 255
    second = read(files[1])[:3] / 255
    chained = tmp_path / "s2_rgb_Aland_2022_10km.tif"
    with (
        rasterio.open(scene) as src,
        rasterio.open(chained, "w", **src.profile | {"dtype": "float32"}) as dst,
    ):
        dst.write(first.clip(0, 1).astype(np.float32))
    run_inference(model, chained, tmp_path / "chained", Settings(1, seed=1), log=str)
    np.testing.assert_allclose(
        read(tmp_path / "chained" / "s2_rgb_Aland_2022_10km_2023.tif")[:3], second, atol=1e-4
    )
    assert np.abs(first - second).mean() > 1e-3


def test_given_captions_are_heard_by_the_nearest_patch(
    model: object, scene: Path, tmp_path: Path
) -> None:
    heard: list = []

    def embed(captions: list) -> dict:
        heard.extend(captions)
        return {}

    class Echo:
        def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
            assert batch["text_t"] == {}
            return batch["rgb_t"]

    found = {(0, 0): THREE, (64, 0): OTHER, None: Captions("", "", "")}
    batch = {"rgb_t": torch.zeros(3), "meta": [{"x": x, "y": 6} for x in (0, 31, 36)]}
    Captioned(Echo(), found, embed).forecast(batch, 1, 0)
    assert heard == [THREE, THREE, OTHER]
    assert Captioned(Echo(), {None: THREE}, embed).at(500, 3) == THREE

    folder = tmp_path / "captions"
    folder.mkdir()
    (folder / "Aland_2021_x0000_y0000.json").write_text(json.dumps(THREE._asdict()))
    (folder / "Aland_2020_x0000_y0000.json").write_text(json.dumps(OTHER._asdict()))
    assert find_captions(folder, "Aland", 2021) == {(0, 0): THREE}
    out = {}
    for name, where in (("found", folder), ("by rule", None)):
        run_inference(model, scene, tmp_path / name, Settings(1), caption_dir=where, log=str)
        out[name] = read(tmp_path / name / "s2_rgb_Aland_2021_10km_2022.tif")
    assert not np.array_equal(out["found"], out["by rule"])


def test_as_published_shrinks_the_tile_and_takes_one_step(
    model: object, scene: Path, tmp_path: Path
) -> None:
    from PIL import Image

    truth = tile(tmp_path / "truth.tif", seed=1)
    said: list[str] = []
    how = {steps: Settings(steps, multi_step=2, as_published=True) for steps in (1, 50)}
    images = {}
    for steps, chosen in how.items():
        report = run_inference(
            model, scene, tmp_path / f"{steps}", chosen, [truth], log=said.append
        )
        images[steps] = [
            np.asarray(Image.open(p)) for p in sorted((tmp_path / f"{steps}").glob("*_202?.png"))
        ]
    assert "one step, the tile shrunk, as published" in said[0]
    assert [image.shape for image in images[1]] == [(64, 64, 3)] * 2
    assert all(np.array_equal(a, b) for a, b in zip(*images.values(), strict=True))
    rgb = api.load_and_resize_tif(scene, 64)
    first = api.predict_next_frame(rgb, model, as_published=True)
    second = api.predict_next_frame(first, model, seed=1, as_published=True)
    for image, forecast in zip(images[1], (first, second), strict=True):
        np.testing.assert_array_equal(image, (forecast * 255).round().byte().permute(1, 2, 0))
    row = json.loads(report.read_text())["years"][0]
    error = (first - api.load_and_resize_tif(truth, 64)).abs().mean()
    assert row["forecast"]["l1"] == pytest.approx(float(error), abs=1e-4)
    assert not list((tmp_path / "1").glob("*.tif"))

    folder = tmp_path / "captions"
    folder.mkdir()
    (folder / "Aland_2021_x0000_y0000.json").write_text(json.dumps(THREE._asdict()))
    for name, same in (
        ("patch", True),
        ("tile", False),
    ):  # only the name of the whole tile is looked for
        run_inference(model, scene, tmp_path / name, how[1], caption_dir=folder, log=str)
        image = np.asarray(Image.open(tmp_path / name / "s2_rgb_Aland_2021_10km_2022.png"))
        assert np.array_equal(image, images[1][0]) is same
        (folder / "Aland_2021.json").write_text(json.dumps(THREE._asdict()))


def test_white_is_that_of_the_published_code_for_its_checkpoint(
    model: object, tmp_path: Path, monkeypatch
) -> None:
    dark = tile(tmp_path / "Aland 2021.tif", dtype="float32")  # reflectance
    settings = {}
    for name, imported, white in (
        ("published", True, None),
        ("ours", False, None),
        ("given", True, 0.5),
    ):
        monkeypatch.setattr(model, "reads_padding", imported)
        report = run_inference(model, dark, tmp_path / name, Settings(1, white=white), log=str)
        settings[name] = json.loads(report.read_text())["settings"]["white"]
    data = model.params.data.model_copy(update={"white": 0.3})
    monkeypatch.setattr(model, "params", model.params.model_copy(update={"data": data}))
    monkeypatch.setattr(model, "reads_padding", False)
    report = run_inference(model, dark, tmp_path / "trained", Settings(1), log=str)
    assert json.loads(report.read_text())["settings"]["white"] == 0.3
    assert settings == {"published": 1.0, "ours": 0.3558, "given": 0.5}
    bright = read(tmp_path / "given" / "Aland 2021_2022.tif")[:3]
    assert 0.02 < bright.mean() < 0.3  # in the units of the input
    assert place_of(dark) == ("Aland 2021", 2021) and place_of(Path("x.tif")) == ("x", None)
    assert place_of(Path("s2_rgb_New_Ulm_2019.tif")) == ("New_Ulm", 2019)
    assert inference.label(None, 2) == "t+2"


def test_without_an_input_the_held_out_regions_are_forecast(
    file: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(job, "root", lambda: tmp_path)
    monkeypatch.setenv("SATJEPA_PARAMS", str(REPO / "params.yaml"))
    args = ("--checkpoint", file, "--output_dir", tmp_path / "out", "--diffusion_steps", 1)
    result = run(*args)
    assert (
        result.exit_code == 2 and "no scenes in" in result.output and "--input_tif" in result.output
    )
    for region, years in (
        ("Aland", (2019, 2020, 2022)),
        ("Bland", (2020, 2021)),
        ("Once", (2020,)),
        ("Train", (2020, 2021)),
    ):
        folder = tmp_path / "artifacts" / "scenes" / "strong" / region
        folder.mkdir(parents=True)
        for year in years:
            tile(folder / f"s2_rgb_{region}_{year}_10km.tif", seed=year)
    split = Split("region", 0, ("Train",), (), ("Aland", "Bland", "Once"))
    monkeypatch.setattr(assemble, "open_split", lambda: split)
    tiles = held_out(load_params())
    pairs = [(tif.name, [truth.name for truth in truths]) for tif, truths in tiles]
    assert pairs == [
        ("s2_rgb_Aland_2019_10km.tif", ["s2_rgb_Aland_2020_10km.tif"]),
        ("s2_rgb_Bland_2020_10km.tif", ["s2_rgb_Bland_2021_10km.tif"]),
    ]
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").glob("*_metrics.json"))) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--checkpoint", "gone.pth.tar"), "no checkpoint at gone.pth.tar"),
        (("--input_tif", "gone.tif"), "gone.tif"),
        (("--gt_tif", "{scene}", "--gt_tif", "{scene}"), "1 years with 2 true images"),
        (("--multi_step", "0"), "0 years with 0 true images"),
        (("--gt_tif", "{moved}"), "moved.tif: found transform"),
        (("--diffusion_steps", "0"), "0 steps from noise strength 0.35"),
        (("--noise_strength", "1.2"), "noise strength 1.2: at least 1, and above 0 up to 1"),
        (("--caption_dir", "{folder}"), "no captions of Aland 2021 in"),
        (
            ("--caption_dir", "{bad}"),
            "expected a JSON object with the texts informative, geometric, semantic",
        ),
        (("--backbone", "{folder}"), "cannot load `transformer` of backbone"),
    ],
)
def test_what_a_user_can_mend_is_one_message(
    words, says: str, file: Path, scene: Path, tmp_path: Path, model
) -> None:
    places = {
        "scene": scene,
        "folder": tmp_path / "folder",
        "bad": tmp_path / "bad",
        "moved": tmp_path / "moved.tif",
    }
    places["folder"].mkdir(), places["bad"].mkdir()
    tile(places["moved"], shift=40)
    (places["bad"] / "Aland_2021_x0000_y0000.json").write_text('{"informative": "x"}')
    given = [word.format(**places) for word in words]
    for name, value in (("--checkpoint", file), ("--input_tif", scene)):
        given += [name, str(value)] if name not in given else []
    result = run("--output_dir", tmp_path / "out", *given)
    assert result.exit_code == 2 and says in result.output, result.output
    assert "error: " in result.output and "Traceback" not in result.output
    assert not list((tmp_path / "out").glob("*.tif"))
