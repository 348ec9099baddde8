"""The command line: thin, lazy, and never a traceback for what a user can mend."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from cli_model import Model, run
from reach import REPO, as_checkout

from satjepa import assemble, cli


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("forecast", "{scene}", "--out", "{out}", "--checkpoint", "nowhere"),
            "no checkpoint at nowhere: run `make repro`",
        ),
        (
            ("forecast", "{scene}", "--out", "{out}"),
            "runs/satjepa-0/model: run `make repro`, or pass --checkpoint FOLDER",
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


def test_help_says_what_is_taken_where_nothing_is_given() -> None:
    shown = " ".join(run("forecast", "--help").output.split())
    assert (
        "runs/<first of arms>-<first of seeds>/model of the pipeline, else assets/demo_model"
        in shown
        and "[from the names]" in shown
    )


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
    monkeypatch.setattr(assemble, "with_caption_lengths", lambda params: params)
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
