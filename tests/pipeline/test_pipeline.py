"""The whole pipeline at smoke size, in a scratch checkout with a DVC cache of its own (`make
smoke`).
"""

import json

import pytest
from reach import REPO
from scratch import ENDS, SHOWS, SMOKE, Scratch

from satjepa.config.files import read_yaml
from satjepa.data.manifest import verify_manifest
from satjepa.evaluation.table import read_scores

ARMS = list(SMOKE["params.yaml"]["arms"])
BASELINES = list(read_yaml(REPO / "params.yaml")["baselines"]["arms"])
TRAIN = {f"train@{arm}-0" for arm in ARMS}
SCORE = {f"score@{arm}-0" for arm in ARMS}
TRAIN_BASELINES = {f"baselines@{arm}-0" for arm in BASELINES}
SCORE_BASELINES = {f"score_baselines@{arm}-0" for arm in BASELINES}
DEMO = {"demo_model", *SHOWS}
LOOK = {"ablations", "figures", "claims"}
ALL = (
    (DEMO | {"data", "captions", "embeddings"} | TRAIN | TRAIN_BASELINES | SCORE | SCORE_BASELINES)
    | LOOK
    | {"writer"}
)
EQUAL = ("data", "train@satjepa-0", "baselines@unet-0", "score@satjepa-0")  # are run twice

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """A checkout at smoke size, nothing run yet."""
    return Scratch(tmp_path_factory.mktemp("smoke") / "satjepa")


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


def test_what_is_only_looked_at_trains_nothing(scratch: Scratch):
    """Another metric setting, sampler and line of a figure: scores and figures only. Notebooks of
    the shipped model follow, too (`test_a_changed_parameter_touches_what_reads_it`); not here.
    """
    scratch.set("params.yaml", {"eval.change_threshold": 0.2, "sample.steps": 3})
    plots = scratch.folder / "satjepa/figures/plots.py"
    plots.write_text(plots.read_text() + "\nSEEN_IN_A_FIGURE = 1\n")
    models = {path: path.read_bytes() for path in scratch.folder.glob("runs/*/model/*")}
    assert scratch.repro(*ENDS) == SCORE | SCORE_BASELINES | LOOK | {"demo_model"}
    assert models == {path: path.read_bytes() for path in scratch.folder.glob("runs/*/model/*")}
    settings = json.loads((scratch.folder / "reports/table.settings.json").read_text())
    assert (settings["change_threshold"], settings["sampler_steps"]) == (0.2, 3)  # what was used


def test_a_changed_arm_runs_that_arm_again_and_the_figures(scratch: Scratch):
    arms = read_yaml(scratch.folder / "params.yaml")["arms"]
    arms["no_jepa"] |= {"loss.caption": 0.25}
    scratch.set("params.yaml", {"arms": arms})
    assert scratch.repro(*ENDS) == {"train@no_jepa-0", "score@no_jepa-0"} | LOOK
