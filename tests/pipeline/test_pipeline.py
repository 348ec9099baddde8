"""The whole pipeline at smoke size, in a scratch checkout with a DVC cache of its own (`make
smoke`).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from satjepa.config.files import read_yaml, with_keys
from satjepa.data.manifest import verify_manifest
from satjepa.evaluation.table import read_scores
from satjepa.pipeline.experiment import lay_out

REPO = Path(__file__).resolve().parents[2]
SMOKE = read_yaml(REPO / "tests/pipeline/smoke.yaml")
ARMS = list(SMOKE["params.yaml"]["arms"])
BASELINES = list(read_yaml(REPO / "params.yaml")["baselines"]["arms"])
TRAIN = {f"train@{arm}-0" for arm in ARMS}
SCORE = {f"score@{arm}-0" for arm in ARMS}
TRAIN_BASELINES = {f"baselines@{arm}-0" for arm in BASELINES}
SCORE_BASELINES = {f"score_baselines@{arm}-0" for arm in BASELINES}
DEMO = {"demo_model", "one_patch", "rollout", "own_region", "words"}
LOOK = {"ablations", "figures", "claims"}
ALL = (
    (DEMO | {"data", "captions", "embeddings"} | TRAIN | TRAIN_BASELINES | SCORE | SCORE_BASELINES)
    | LOOK
    | {"writer"}
)
EQUAL = ("data", "train@satjepa-0", "baselines@unet-0", "score@satjepa-0")  # are run twice

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(3600)]


class Scratch:
    """A checkout in which DVC can be run and files can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def dvc(self, *arguments: str) -> str:
        """The output of a dvc command that must succeed."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        command = [sys.executable, "-m", "dvc", *arguments]
        env = {name: value for name, value in os.environ.items() if name != "SATJEPA_PARAMS"} | {
            "PATH": path
        }
        done = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (
            f"dvc {' '.join(arguments)}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        )
        return done.stdout

    def repro(self, *arguments: str) -> set[str]:
        """Run `dvc repro`; the stages that ran."""
        return set(
            re.findall(r"^Running stage '(.+)':$", self.dvc("repro", *arguments), re.MULTILINE)
        )

    def set(self, name: str, changes: dict) -> None:
        """Change dotted keys of a YAML file."""
        values = with_keys(read_yaml(self.folder / name), changes)
        (self.folder / name).write_text(yaml.safe_dump(values, sort_keys=False))

    def lock(self) -> str:
        """The bytes that dvc.lock promises."""
        return (self.folder / "dvc.lock").read_text()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """The work tree laid out anew, at smoke size, nothing run yet."""
    checkout = Scratch(tmp_path_factory.mktemp("smoke") / "satjepa")
    lay_out(checkout.folder, (REPO / "params.yaml").read_text())
    (
        checkout.folder / ".dvc/config.local"
    ).unlink()  # its own cache: here everything must be computed
    for name, changes in SMOKE.items():
        checkout.set(name, changes)
    return checkout


def test_everything_runs_once(scratch: Scratch):
    ran = scratch.repro()  # but the frozen backbone
    assert ran == ALL
    rows = read_scores(scratch.folder / "reports/table.csv")
    assert rows and all(row["model"] for row in rows)
    for name in ["runs/satjepa-0/model", "reports/figures", "reports/notebooks/06_score"]:
        assert any((scratch.folder / name).iterdir())


def test_rendered_scenes_are_those_of_their_manifest(scratch: Scratch):
    for preset in ("strong", "gentle"):
        folder = scratch.folder / "artifacts/scenes" / preset
        files = sum(path.is_file() for path in folder.rglob("*")) - 1
        assert verify_manifest(folder) == files > 0


def test_a_second_run_runs_nothing(scratch: Scratch):
    before = scratch.lock()
    assert scratch.repro() == set()
    assert scratch.lock() == before


def test_equal_runs_give_equal_bytes(scratch: Scratch):
    before = scratch.lock()
    assert scratch.repro("--force", "--single-item", *EQUAL) == set(EQUAL)
    assert scratch.lock() == before


def test_what_is_only_looked_at_trains_nothing(scratch: Scratch):
    """Another metric setting, sampler and line of a figure: scores and figures only."""
    scratch.set("params.yaml", {"eval.change_threshold": 0.2, "sample.steps": 3})
    plots = scratch.folder / "satjepa/figures/plots.py"
    plots.write_text(plots.read_text() + "\nSEEN_IN_A_FIGURE = 1\n")
    models = {path: path.read_bytes() for path in scratch.folder.glob("runs/*/model/*")}
    assert scratch.repro() == SCORE | SCORE_BASELINES | LOOK | DEMO
    assert models == {path: path.read_bytes() for path in scratch.folder.glob("runs/*/model/*")}
    settings = json.loads((scratch.folder / "reports/table.settings.json").read_text())
    assert (settings["change_threshold"], settings["sampler_steps"]) == (0.2, 3)  # what was used


def test_a_changed_arm_runs_that_arm_again_and_the_figures(scratch: Scratch):
    arms = read_yaml(scratch.folder / "params.yaml")["arms"]
    arms["no_jepa"] |= {"loss.caption": 0.25}
    scratch.set("params.yaml", {"arms": arms})
    assert scratch.repro() == {"train@no_jepa-0", "score@no_jepa-0"} | LOOK


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("train.steps", 5, TRAIN | {"figures"}),
        ("loss.caption", 0.25, TRAIN),
        ("train.true_captions", 0.25, TRAIN),
        ("vlm.batch", 4, {"captions"}),
        # it names the folder of captions and embeddings, which all that follows reads
        ("captions.prompt_version", 2, ALL - DEMO - {"data"}),
        ("captions.max_length", 40, {"embeddings"} | TRAIN | TRAIN_BASELINES),
        ("backbone.lora_rank", 8, TRAIN | TRAIN_BASELINES),  # one may be SD 3.5 with LoRA
        ("baselines.arms.unet.title", "A U-Net", {"score_baselines@unet-0", "figures"}),
        (
            "baselines.arms.unet.train.lr",
            1e-4,
            {"baselines@unet-0", "score_baselines@unet-0", "figures"},
        ),
        ("sample.guidance", 2.0, SCORE | SCORE_BASELINES | LOOK | DEMO),
        ("writer.steps", 5, {"writer", "ablations", "words"}),
        ("eval.max_patches", 4, SCORE | SCORE_BASELINES | {"figures"}),
        ("data.on_bad_scene", "exclude", {"data"}),
    ],
)
def test_a_changed_parameter_touches_what_reads_it(
    scratch: Scratch, key: str, value: object, stages: set[str]
):
    """Directly; what stands after those stages follows by their outs."""
    kept = (scratch.folder / "params.yaml").read_text()
    scratch.set("params.yaml", {key: value})
    try:
        changed = json.loads(scratch.dvc("status", "--json"))
    finally:
        (scratch.folder / "params.yaml").write_text(kept)
    assert {name for name in changed if name != "data.dvc"} == stages


def test_own_regions_take_the_same_way(scratch: Scratch, tmp_path: Path):
    """Folders of GeoTIFFs in place of the demo world: reflectance, one preset, no truth, some
    without AlphaEarth.
    """
    own = Scratch(tmp_path / "own")
    lay_out(own.folder, (scratch.folder / "params.yaml").read_text())
    (own.folder / ".dvc/config.local").unlink()
    regions = tmp_path / "regions"
    for name in ("Aldmere", "Birkenau", "Zarnekow", "Ambergau"):
        source = scratch.folder / "artifacts/scenes/strong" / name
        for path in source.glob("*_10km.tif"):
            if not (path.name.startswith("gee") and name == "Zarnekow"):
                (regions / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, regions / name)
    for path in regions.rglob("s2_rgb_*.tif"):
        with rasterio.open(path) as src:
            profile = src.profile
            shown = src.read()
        with rasterio.open(path, "w", **profile | {"dtype": "uint16"}) as dst:
            dst.write(np.rint(shown / 255 * 3558).astype(np.uint16))
    own.set("params.yaml", {"data.root": str(regions), "data.presets": ["mine"],
    "data.val_regions": 1,
                            "data.test_regions": 1, "data.white": 0.3558})  # fmt: skip
    shipped = (own.folder / "assets/demo_model/README.md").read_text()
    own.repro()
    assert (own.folder / "assets/demo_model/README.md").read_text() == shipped
    rows = read_scores(own.folder / "reports/table.csv")
    assert {row["preset"] for row in rows} == {"mine"} and not any(
        "Oracle" in row["model"] for row in rows
    )
