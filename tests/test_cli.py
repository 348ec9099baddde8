"""The command line: thin, lazy, and never a traceback for what a user can mend."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from reach import as_checkout
from typer.testing import CliRunner, Result

from satjepa import assemble, cli
from satjepa.config import Params, load_params
from satjepa.training import checkpoint, provenance

REPO = Path(__file__).resolve().parents[1]


class Model(torch.nn.Module):
    """Stands in for SatJepa: persistence, a shade darker for each step of the sampler."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        self.params = params
        self.backbone = torch.nn.Linear(2, 2).requires_grad_(False)
        torch.nn.init.ones_(self.backbone.weight), torch.nn.init.zeros_(self.backbone.bias)
        self.scale = torch.nn.Parameter(torch.zeros(1))

    @property
    def strength(self) -> float:
        return self.params.sample.strength

    def state(self) -> dict:
        return {"scale": self.scale.data}

    def load_state(self, state: dict) -> None:
        self.scale.data = state["scale"]

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        assert batch["text_t"]["hidden"].shape[1:] == (3, self.params.captions.max_length, 4)
        return (batch["rgb_t"] * self.scale.detach() - self.params.sample.steps / 1000).expand(
            samples, -1, -1, -1, -1
        )


class Encoders:
    def embed_batch(self, texts: list[str], length: int) -> tuple:
        mask = torch.ones(len(texts), length, dtype=torch.bool)
        return torch.zeros(len(texts), length, 4), mask, torch.zeros(len(texts), 6)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint folder that `forecast` can open."""
    monkeypatch.setenv("SATJEPA_PARAMS", str(REPO / "params.yaml"))
    monkeypatch.setattr(assemble, "build_model", Model)
    monkeypatch.setattr(assemble, "load_text_encoders", lambda params: Encoders())
    model = Model(load_params())
    model.scale.data.fill_(1.0)
    header = provenance.make_header(
        model.params.as_dict(), "s", provenance.hash_module(model.backbone, True)
    )
    return checkpoint.save(tmp_path / "model", model.state(), header, {"step": 1}, {})


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "field_2021.tif"
    data = (60 + 100 * np.random.default_rng(0).random((3, 70, 66))).astype(np.uint8)
    where = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 3e5, 0, -10, 5e6)}
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=70, width=66, dtype="uint8", **where
    ) as dst:
        dst.write(data)
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def test_forecast_writes_what_was_asked_and_says_what_it_did(
    trained: Path, scene: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.tif"
    result = run(
        "forecast",
        scene,
        "--out",
        out,
        "--checkpoint",
        trained,
        "--samples",
        2,
        "--seed",
        7,
        "--steps",
        51,
    )
    assert result.exit_code == 0, result.output
    for word in (
        "51 steps from pure noise, strict zero-RGB",
        "2 samples, seed 7",
        "white 1",
        "forecast of year 2022",
    ):
        assert word in result.output
    with rasterio.open(out) as dst, rasterio.open(scene) as src:
        np.testing.assert_allclose(dst.read()[:3], src.read() - 255 * 0.051, atol=1e-3)
        tags = dst.tags()
    digest = checkpoint.load(trained).state["sha256"][checkpoint.MODEL]
    assert (
        tags["MODEL"] == digest[:12]
        and tags["SEED"] == "7"
        and tags["STRENGTH"] == "1"
        and tags["STEPS"] == "51"
    )


def test_years_white_and_strength_are_passed_on(trained: Path, scene: Path, tmp_path: Path) -> None:
    older = scene.rename(tmp_path / "older.tif")
    newer = tmp_path / "newer.tif"
    newer.write_bytes(older.read_bytes())
    args = (
        "--out",
        tmp_path / "o.tif",
        "--checkpoint",
        trained,
        "--strength",
        0.35,
        "--white",
        0.9,
        "--guidance",
        2,
    )
    result = run("forecast", older, newer, *args, "--year", 2018, "--year", 2019)
    assert result.exit_code == 0, result.output
    for word in (
        "from the last image, strength 0.35: not zero-RGB",
        "guidance 2",
        "history [2018]",
        "white 0.9, as given",
    ):
        assert word in result.output
    assert rasterio.open(tmp_path / "o.tif").tags()["YEAR"] == "2020"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("forecast", "{scene}", "--out", "{out}", "--checkpoint", "nowhere"),
            "no checkpoint at nowhere: run `make repro`",
        ),
        (
            ("forecast", "{scene}", "--out", "{out}"),
            "runs/joint/0/model: run `make repro`, or pass --checkpoint FOLDER",
        ),
        (("forecast", "gone.tif", "--out", "{out}", "--checkpoint", "{trained}"), "gone.tif"),
        (
            ("forecast", "{scene}", "{scene}", "--out", "{out}", "--checkpoint", "{trained}"),
            "from oldest to newest",
        ),
        (
            (
                "forecast",
                "{scene}",
                "--out",
                "{out}",
                "--checkpoint",
                "{trained}",
                "--strength",
                "2",
            ),
            "sample.strength",
        ),
        (
            ("forecast", "{trained}/state.json", "--out", "{out}", "--checkpoint", "{trained}"),
            "cannot be read",
        ),
        (
            ("forecast", "{scene}", "--out", "{scene}", "--checkpoint", "{trained}"),
            "would be written over",
        ),
        (("forecast", "{folder}", "--out", "{out}", "--checkpoint", "{trained}"), "{folder}"),
        (("evaluate", "--checkpoint", "nowhere"), "no checkpoint at nowhere"),
        (("train", "--arm", "no_jpea"), "no_jepa"),
        (("caption", "gone.tif"), "gone.tif"),
        (("data", "verify", "gone"), "gone"),
    ],
)
def test_what_a_user_can_mend_is_one_message(
    words: tuple,
    says: str,
    trained: Path,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(as_checkout(tmp_path))  # a checkout where nothing has run
    places = {"scene": scene, "out": tmp_path / "o.tif", "trained": trained, "folder": tmp_path}
    result = run(*(word.format(**places) for word in words))
    assert result.exit_code == 2 and says.format(**places) in result.output, result.output
    assert result.output.startswith("error: ") or "\nerror: " in result.output
    assert "Traceback" not in result.output and isinstance(result.exception, SystemExit)
    assert not (tmp_path / "o.tif").exists()


def test_the_white_of_the_training_holds_unless_another_is_given(
    trained: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_white(*args, **kwargs):
        model = from_checkpoint(*args, **kwargs)
        model.params = dataclasses.replace(
            model.params, data=dataclasses.replace(model.params.data, white=0.5)
        )
        return model

    from_checkpoint = assemble.from_checkpoint
    monkeypatch.setattr(assemble, "from_checkpoint", with_white)
    with rasterio.open(scene) as src:
        profile = src.profile
        data = src.read()
    with rasterio.open(tmp_path / "float.tif", "w", **profile | {"dtype": "float32"}) as dst:
        dst.write((data / 255).astype("float32"))
    args = (
        "forecast",
        tmp_path / "float.tif",
        "--out",
        tmp_path / "o.tif",
        "--checkpoint",
        trained,
    )
    assert "white 0.5, as in training" in run(*args).output
    assert "white 0.75, as given" in run(*args, "--white", 0.75).output


def test_files_are_looked_at_before_the_model_is_loaded(
    trained: Path, scene: Path, monkeypatch
) -> None:
    monkeypatch.setattr(assemble, "from_checkpoint", lambda *_, **__: pytest.fail("loaded"))
    for images, out in (
        ([scene, scene], "o.tif"),
        ([trained / "state.json"], "o.tif"),
        ([scene], scene),
    ):
        result = run("forecast", *images, "--out", out, "--checkpoint", trained)
        assert result.exit_code == 2 and "error: " in result.output, result.output


def test_help_says_what_is_taken_where_nothing_is_given() -> None:
    shown = " ".join(run("forecast", "--help").output.split())
    assert (
        "runs/joint/<first of ablate.seeds>/model of the pipeline, else assets/demo_model" in shown
        and "[from the names]" in shown
    )


def test_another_backbone_is_refused(
    trained: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(params: Params) -> Model:
        model = Model(params)
        model.backbone.weight.data += 1
        return model

    monkeypatch.setattr(assemble, "build_model", other)
    result = run("forecast", scene, "--out", tmp_path / "o.tif", "--checkpoint", trained)
    assert result.exit_code == 2 and "restore that backbone, or train again" in result.output


def test_a_bug_keeps_its_traceback_and_an_interrupt_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from satjepa.training.run import Interrupted

    def fails(error: BaseException):
        def command() -> None:
            raise error

        return cli.common.plainly(command)

    with pytest.raises(ZeroDivisionError):
        fails(ZeroDivisionError())()
    for error, code in (
        (Interrupted("stopped"), 130),
        (KeyboardInterrupt(), 130),
        (FileNotFoundError("x"), 2),
    ):
        with pytest.raises(cli.common.typer.Exit) as exit_:
            fails(error)()
        assert exit_.value.exit_code == code


def test_caption_describes_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "field.tif"
    field = np.broadcast_to(np.array([66, 120, 51], np.uint8)[:, None, None], (3, 64, 64))
    with rasterio.open(path, "w", driver="GTiff", count=3, height=64, width=64, dtype="uint8",
    crs="EPSG:32633",
                       transform=rasterio.Affine(10, 0, 0, 0, -10, 0)) as dst:  # fmt: skip
        dst.write(field)
    result = run("caption", path)
    assert result.exit_code == 0 and "informative  Green crops 100 percent" in result.output, (
        result.output
    )
    assert "geometric" in result.output and "semantic" in result.output


def test_data_verify_names_the_bad_file(scene: Path, tmp_path: Path) -> None:
    from satjepa.data.manifest import write_manifest

    region = tmp_path / "scenes" / "Aland"
    region.mkdir(parents=True)
    files = [region / f"s2_rgb_Aland_{year}_10km.tif" for year in (2020, 2021)]
    for file in files:
        file.write_bytes(scene.read_bytes())
    result = run("data", "verify", region.parent)
    assert (
        result.exit_code == 0 and "2 scenes kept, 0 excluded; no MANIFEST.sha256" in result.output
    ), result.output
    write_manifest(region.parent)
    assert "2 files as in MANIFEST.sha256" in run("data", "verify", region.parent).output
    blob = bytearray(files[1].read_bytes())
    blob[-1] ^= 1  # a pixel: still a readable raster
    files[1].write_bytes(blob)
    result = run("data", "verify", region.parent)
    assert result.exit_code == 2 and "s2_rgb_Aland_2021_10km.tif: sha256" in result.output
    (region.parent / "MANIFEST.sha256").unlink()
    files[1].write_bytes(blob[: len(blob) // 2])
    result = run("data", "verify", region.parent)
    assert (
        result.exit_code == 1
        and "1 excluded" in result.output
        and "s2_rgb_Aland_2021" in result.output
    )


def test_train_and_evaluate_call_the_modules(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import pandas as pd

    from satjepa.evaluation import score
    from satjepa.training import loop as training

    seen: dict = {}
    monkeypatch.setattr(assemble, "dataset", lambda params, part, latents: (part, latents))
    monkeypatch.setattr(
        training, "train", lambda *args, **kwargs: seen.update(args=args, **kwargs) or Path("done")
    )
    result = run(
        "train",
        "--arm",
        "no_jepa",
        "--seed",
        3,
        "--run-dir",
        tmp_path,
        "--resume",
        "no",
        "--minutes",
        2,
    )
    assert result.exit_code == 0 and "finished: done" in result.output, result.output
    model, data, params, folder, resume = seen["args"]
    assert (
        isinstance(model, Model)
        and data == ("train", True)
        and (folder, resume) == (tmp_path, "no")
    )
    assert params.seed == 3 and params.model.use_jepa is False and seen["max_seconds"] == 120

    monkeypatch.setattr(assemble, "load_model", lambda folder: folder)
    monkeypatch.setattr(
        score,
        "score_run",
        lambda model, params, out: pd.DataFrame([{"model": str(model), "psnr": 1.23456}]),
    )
    result = run("evaluate", "--checkpoint", trained)
    assert result.exit_code == 0 and str(trained) in result.output and "1.235" in result.output, (
        result.output
    )


def test_help_imports_nothing_heavy_and_names_every_job() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from satjepa.cli import app;"
        "print(CliRunner().invoke(app, ['--help']).output);"
        "print([m for m in ('torch', 'numpy', 'rasterio', 'diffusers', 'pandas') if m in "
        "sys.modules])"
    )
    env = os.environ | {"TERM": "dumb", "NO_COLOR": "1"}
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, env=env, capture_output=True, text=True, check=True
    ).stdout
    for word in ("forecast", "train", "evaluate", "caption", "data"):
        assert word in out
    assert out.strip().endswith("[]"), out
