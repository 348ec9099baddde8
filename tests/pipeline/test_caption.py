"""The caption stage: each captioner has its own table, goes on where it was killed, and is told
apart from the others by DVC, too.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from earthdial_files import write_checkpoint
from reach import as_checkout

from satjepa import assemble
from satjepa.captions import rules
from satjepa.captions.earthdial import import_earthdial
from satjepa.captions.outcomes import CaptionsFailed, Written
from satjepa.captions.prompts import HERE, load_prompts
from satjepa.captions.table import lookup, read_table
from satjepa.captions.vlm import VlmNotFound
from satjepa.captions.writing import caption_patches
from satjepa.config import ConfigError, Params, load_params
from satjepa.contracts import Captions
from satjepa.data.splits import SplitPart
from satjepa.paths import root
from satjepa.pipeline import caption, embed

REPO = Path(__file__).resolve().parents[2]
SIDE = 64
PLAIN = load_prompts("plain").hash


class Split:
    """All of it is in every part."""

    def part(self, name: str) -> SplitPart:
        return SplitPart(name, "region", frozenset(["Alpha"]))


class Encoders:
    """Texts are embedded as their lengths."""

    def fingerprint(self) -> str:
        return "encoders"

    def encode(self, texts: list[str], max_length: int, batch: int) -> list[tuple]:
        return [(torch.full((2, 4), float(len(t))), torch.full((3,), float(len(t)))) for t in texts]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one region of three years, its samples all in every part."""
    monkeypatch.chdir(as_checkout(tmp_path))
    assert root() == tmp_path  # else the repository itself would be written to
    rng = np.random.default_rng(0)
    arrays = {
        "rgb": (("year", "band", "y", "x"), rng.integers(0, 256, (3, 3, SIDE, SIDE), "u1")),
        "valid": (("year", "y", "x"), np.ones((3, SIDE, SIDE), bool)),
    }
    attrs = {"region": "Alpha", "preset": "strong"}
    cube = xr.Dataset(arrays, {"year": np.arange(2017, 2020)}, attrs)
    monkeypatch.setattr(assemble, "cubes_of", lambda preset: [cube])
    monkeypatch.setattr(assemble, "open_split", Split)
    monkeypatch.setattr(embed, "load_text_encoders", lambda params: Encoders())
    return tmp_path


def params_of(vlm: dict[str, object] | None = None, **captions: object) -> Params:
    dotted = {f"captions.{key}": value for key, value in captions.items()}
    dotted |= {f"vlm.{key}": value for key, value in (vlm or {}).items()}
    return load_params(REPO / "params.yaml", **{"data.presets": ["strong"], **dotted})


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_captioner_changes_nothing_for_the_first(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params_of()
    assert caption.caption_all(params, progress=False) == 3
    embed.embed_all(params, progress=False)
    before = files(home)
    batch = assemble.dataset(params, "train")[0]
    other = params_of(captioner="some/model")
    texts = Captions("a longer text", "than those", "of the rules")
    wordy = lambda pictures: [Written(texts, {"prompts": PLAIN}) for _ in pictures]  # noqa: E731
    monkeypatch.setattr(caption, "captioner_of", lambda params: wordy)
    assert caption.caption_all(other, progress=False) == 3
    embed.embed_all(other, progress=False)
    assert {path: before[path] for path in before} == {
        path: content for path, content in files(home).items() if path in before
    }
    words = assemble.dataset(other, "train")[0]["text_t"]["pooled"]
    assert words[:, 0].tolist() == [13, 10, 12]
    again = assemble.dataset(params, "train")[0]
    for part in ("hidden", "mask", "pooled"):
        assert torch.equal(again["text_t"][part], batch["text_t"][part])


def test_rows_of_others_in_a_table_are_passed_over(home: Path) -> None:
    params = params_of()
    caption.caption_all(params, progress=False)
    embed.embed_all(params, progress=False)
    table = assemble.captions_file(params)
    words = assemble.dataset(params, "train")[0]["text_tp1"]["pooled"]
    images = [(key, np.zeros((3, 2, 2)), None) for key in lookup(table, "rules", 1)]
    for name, version in (("rules", 2), ("zzz", 1)):
        other = lambda rgb, valid: Captions("not", "stored", "here")  # noqa: E731
        caption_patches(images, other, table, name, version, progress=False)
    assert len(read_table(table)) == 9
    assert torch.equal(assemble.dataset(params, "train")[0]["text_tp1"]["pooled"], words)


def test_words_have_the_lengths_of_the_params(home: Path) -> None:
    params = params_of()
    caption.caption_all(params, progress=False)
    embed.embed_all(params, progress=False)
    words = assemble.dataset(params, "train")[0]["text_t"]
    assert words["hidden"].shape == (3, params.captions.max_length, 4)
    shorter = assemble.dataset(params_of(lengths=[5, 1, 3]), "train")[0]["text_t"]
    assert shorter["hidden"].shape == (3, 5, 4)
    assert shorter["mask"].sum(-1).tolist() == [2, 1, 2]  # a text has two tokens here


def test_a_finished_table_needs_no_captioner(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = params_of()
    caption.caption_all(params, progress=False)
    monkeypatch.setattr(caption, "captioner_of", lambda params: pytest.fail("was loaded"))
    assert caption.caption_all(params, progress=False) == 0


@pytest.mark.parametrize("captioner", ["rules", "some/model"])
def test_another_version_than_the_code_writes_is_refused(captioner: str) -> None:
    with pytest.raises(ConfigError, match=rf"prompt_version: found 7; accepted: 1.*{captioner}"):
        caption.captioner_of(params_of(captioner=captioner, prompt_version=7))


@pytest.fixture(scope="module")
def earthdial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported folder; its weights are random, and so are its words."""
    folder = tmp_path_factory.mktemp("earthdial")
    write_checkpoint(folder / "theirs")
    return import_earthdial(folder / "theirs", folder / "ours", progress=False)


def test_an_imported_folder_is_a_captioner(
    home: Path, earthdial: Path, capsys: pytest.CaptureFixture
) -> None:
    """By its name alone in params.yaml; with batches of another size it says the same."""
    params = params_of(captioner=str(earthdial))
    assert caption.caption_all(params) == 3
    shown = capsys.readouterr().out
    assert f"{earthdial}: captions of 3 images, 0 from one answer" in shown
    assert "3 from three answers" in shown
    table = read_table(assemble.captions_file(params))
    assert set(table.captioner) == {str(earthdial)}
    assert set(table.prompts) == {load_prompts("earthdial").hash}
    assert table.revision.str.startswith("blake2b:").all() and (table.calls == "separate").all()
    assert table.library.str.match(r"transformers \d").all()
    assert table.date.str.fullmatch(r"20\d\d-\d\d-\d\d").all()
    assert caption.caption_all(params, progress=False) == 0
    assemble.captions_file(params).unlink()
    one_by_one = params_of({"batch": 1}, captioner=str(earthdial))
    assert caption.caption_all(one_by_one, progress=False) == 3
    again = read_table(assemble.captions_file(params))
    assert again.drop(columns="date").equals(table.drop(columns="date"))
    plain = params_of({"prompts": "plain"}, captioner=str(earthdial))
    assert caption.caption_all(plain, progress=False) == 3  # of other prompts, so made again
    assert set(read_table(assemble.captions_file(plain)).prompts) == {PLAIN}


def test_prompts_of_ones_own_are_asked_for_by_file(home: Path, earthdial: Path) -> None:
    """Relative to the repository's root; another version of them is another table."""
    text = (HERE / "earthdial.yaml").read_text().replace("version: 1", "version: 2")
    (home / "mine.yaml").write_text(text.replace("north up", "south up"))
    settings = {"captioner": str(earthdial), "vlm": {"prompts": "mine.yaml"}}
    with pytest.raises(ConfigError, match=r"prompt_version: found 1; accepted: 2.*mine\.yaml"):
        caption.caption_all(params_of(**settings), progress=False)
    params = params_of(**settings, prompt_version=2)
    assert caption.caption_all(params, progress=False) == 3
    assert set(read_table(assemble.captions_file(params)).prompts) != {PLAIN}
    assert assemble.captions_file(params).parent.name == "2"


def test_images_that_a_model_fails_on_are_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(pictures: list) -> list:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(caption, "captioner_of", lambda params: failing)
    with pytest.raises(
        CaptionsFailed, match=r"captions: 3, .*Alpha/\d+/0/0: RuntimeError: out of mem"
    ):
        caption.caption_all(params_of(captioner="some/model"), progress=False)


def test_a_model_that_cannot_be_loaded_is_no_failing_image(home: Path) -> None:
    with pytest.raises(VlmNotFound, match="no vision-language model in /no/such"):
        caption.caption_all(params_of(captioner="/no/such"), progress=False)


def test_a_revision_is_a_commit_of_a_hub_repository(home: Path, earthdial: Path) -> None:
    with pytest.raises(ConfigError, match=r"vlm\.revision: found .*main.*accepted: the 40"):
        params_of({"revision": "main"}, captioner="some/model")
    commit = "0123456789abcdef0123456789abcdef01234567"
    params = params_of({"revision": commit}, captioner=str(earthdial))
    with pytest.raises(ConfigError, match=r"vlm\.revision: .*accepted: null: .* is a folder"):
        caption.caption_all(params, progress=False)


def test_the_version_of_the_rules_is_the_one_of_their_sentences() -> None:
    """Changed rules must be a new version: the captions of the old one are kept in the tables."""
    y, x = np.mgrid[0:64, 0:64] / 64
    images = [
        np.stack([x * y, y, 0.2 + 0 * x]),
        np.stack([y, x, y * x]) * 0.4,
        np.full((3, 64, 64), 0.1),
    ]
    texts = [rules.caption(image.astype(np.float32), None, "display") for image in images]
    assert [" ".join(three) for three in texts] == SENTENCES[rules.PROMPT_VERSION]


SENTENCES = {
    1: [
        "Water 35 percent, green crops 35, yellow crops 20, grass 10, pasture 5. Very "
        "strong vigour, medium, high contrast, neutral tint. Four very large parcels, edges"
        " run west to east. Water north, green crops southwest, yellow crops southeast and "
        "grass east. Soft edges. Farmland with water. Northwest water and green crops, "
        "northeast water and pasture, southwest green crops, southeast yellow crops and "
        "grass. No sign of change.",
        "Forest 40 percent, burnt ground 20, clearing 15, young trees 10, pasture 5, pale "
        "soil 5. Strong vigour, dark, medium contrast, golden tint. Three medium parcels, "
        "edges run southwest to northeast. Forest north, burnt ground southwest, clearing "
        "south and young trees east. Soft edges. Forest with farmland. Northwest forest and"
        " burnt ground, northeast forest and young trees, southwest burnt ground and "
        "clearing, southeast clearing and pasture. Change: clearing south, burnt ground "
        "southwest.",
        "Water 100 percent. No vigour, very dark, flat contrast, neutral tint. No parcels, "
        "without a grid. Water centre. Smooth edges. Water. Northwest water, northeast "
        "water, southwest water, southeast water. No sign of change.",
    ]
}
CAPTIONER = """
import os, sys
import numpy as np, yaml
from satjepa.captions.table import folder_of
from satjepa.captions.writing import caption_patches
from satjepa.contracts import Captions, PatchKey

settings = yaml.safe_load(open("params.yaml"))["captions"]
name, version = settings["captioner"], settings["prompt_version"]
calls = 0

def caption(rgb, valid):
    global calls
    if calls == 2 and os.path.exists("kill"):
        os.kill(os.getpid(), 9)
    calls += 1
    return Captions(name, "g", "s")

images = [(PatchKey("p", "A", year, 0, 0), np.zeros((3, 2, 2)), None) for year in range(2017, 2021)]
table = folder_of("artifacts/captions", name, version) / "captions.parquet"
caption_patches(images, caption, table, name, version, every=0.0, progress=False)
print("wrote", calls)
"""
STAGES = """
stages:
  captions:
    cmd: "{python} caption.py"
    deps: [caption.py]
    params: [captions.captioner, captions.prompt_version]
    outs:
      - artifacts/captions/${{captions.captioner}}/${{captions.prompt_version}}/captions.parquet:
          persist: true
  train:
    cmd: mkdir -p runs && cp {table} runs/model
    deps: ["{table}"]
    outs: [runs/model]
"""
TABLE = "artifacts/captions/${captions.captioner}/${captions.prompt_version}/captions.parquet"


def repro(folder: Path, fails: bool = False) -> str:
    env = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert bool(done.returncode) == fails, done.stderr
    return done.stdout


def test_dvc_keeps_what_a_captioner_wrote(tmp_path: Path) -> None:
    """Killed under `dvc repro` it goes on; another captioner, with a slash in its name, writes
    beside it; and back at the first one nothing is written or trained again.
    """
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "caption.py").write_text(CAPTIONER)
    (tmp_path / "dvc.yaml").write_text(STAGES.format(python=sys.executable, table=TABLE))

    def choose(captioner: str) -> None:
        values = {"captions": {"captioner": captioner, "prompt_version": 1}}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))

    choose("rules")
    (tmp_path / "kill").touch()
    repro(tmp_path, fails=True)
    (tmp_path / "kill").unlink()
    assert "wrote 2" in repro(tmp_path)
    before = files(tmp_path / "artifacts")
    choose("some/model")
    assert "wrote 4" in repro(tmp_path)
    assert before.items() <= files(tmp_path / "artifacts").items()
    choose("rules")
    output = repro(tmp_path)
    assert "wrote 0" in output and "Running stage 'train'" not in output
    assert (tmp_path / "runs/model").read_bytes() in before.values()
