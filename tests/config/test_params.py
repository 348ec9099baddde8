"""params.yaml is read strictly: what is accepted, what is refused, and how the refusal reads."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from reach import as_checkout

from satjepa.config import ConfigError, Params, digest, from_dict, load_params
from satjepa.config.errors import valid_keys
from satjepa.config.files import merged, read_params

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def write(tmp_path: Path):
    """A params file with dotted changes: write({"data.history": 5}) -> path; a value of `...`
    removes the key.
    """

    def _write(changes: dict, name: str = "params.yaml") -> Path:
        values = yaml.safe_load((REPO / "params.yaml").read_text())
        for key, value in changes.items():
            *sections, leaf = key.split(".")
            node = values
            for section in sections:
                node = node[section]
            if value is ...:
                del node[leaf]
            else:
                node[leaf] = value
        (tmp_path / name).write_text(yaml.safe_dump(values))
        return tmp_path / name

    return _write


PATHS = sorted(REPO.glob("params*.yaml"))


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_every_value_of_the_file_arrives_and_nothing_else(path: Path):
    assert load_params(path).as_dict() == read_params(path)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_every_file_has_the_model_itself_ablations_and_the_published_system(path: Path):
    params = load_params(path)
    assert params.main_arm == "satjepa" and params.arms["satjepa"] == {}
    assert {"no_captions", "no_jepa", "coarse_rgb"} <= set(params.arms_of("ablation"))
    assert "published_captions" in params.arms_of("published")
    assert len(params.arms) == 1 + len(params.arms_of("ablation") + params.arms_of("published"))


def test_params_are_frozen():
    params = load_params(REPO / "params.yaml")
    with pytest.raises(ValidationError):
        params.train.steps = 1


@pytest.mark.parametrize(
    ("changes", "key", "found", "accepted", "nearest"),
    [
        ({"data.histroy": 1}, "data.histroy", "unknown", "data.history", "data.history"),
        ({"history": 1}, "history", "unknown", "data", "data.history"),
        (
            {"model.encoder.depht": 1},
            "model.encoder.depht",
            "unknown",
            "model.encoder.depth",
            "model.encoder.depth",
        ),
        ({"modle": {}}, "modle", "unknown", "model", "model"),
        ({"train.dim": 1}, "train.dim", "unknown", "train.steps", "model.encoder.dim"),
        ({"zebra": 1}, "zebra", "unknown", "seed", None),
        ({"data.patch": ...}, "data.patch", "nothing", "every key", None),
        ({"model": 3}, "model", "3 (int)", "use_jepa", None),
        ({"train.steps": "many"}, "train.steps", "'many' (str)", "int", None),
        ({"train.steps": True}, "train.steps", "True (bool)", "int", None),
        ({"train.steps": 3.0}, "train.steps", "3.0 (float)", "int", None),
        ({"train.steps": 0}, "train.steps", "0 (int)", "at least 1", None),
        ({"train.lr": "fast"}, "train.lr", "'fast'", "float", None),
        ({"train.lr": float("nan")}, "train.lr", "nan", "finite", None),
        ({"train.lr": True}, "train.lr", "True (bool)", "float", None),
        ({"train.lr": 0}, "train.lr", "0", "above 0", None),
        ({"train.warmup": 1.5}, "train.warmup", "1.5", "at most 1", None),
        ({"train.precision": False}, "train.precision", "False", "float32 | bf16", None),
        ({"train.target_ema": [0.99]}, "train.target_ema", "shorter", "list of 2", None),
        ({"train.target_ema": [1.0, 0.99]}, "train.target_ema", "[1.0, 0.99]", "from <= to", None),
        ({"data.history": 5}, "data.history", "5", "at most 4", None),
        ({"data.history": -1}, "data.history", "-1", "at least 0", None),
        ({"data.split": "regions"}, "data.split", "'regions'", "region | year | published", None),
        ({"data.root": ""}, "data.root", "''", "not empty", None),
        ({"data.presets": "strong"}, "data.presets", "'strong'", "a list", None),
        ({"data.presets": ["a", 1]}, "data.presets[1]", "1 (int)", "text", None),
        ({"data.patch": 60}, "data.patch", "60", "model.encoder.patch (8)", None),
        ({"seeds": []}, "seeds", "[]", "one or more", None),
        ({"seeds": [1, 1]}, "seeds", "[1, 1]", "twice", None),
        ({"arms": ["full"]}, "arms", "list", "mapping", None),
        ({"arms": {}}, "arms", "{}", "one or more", None),
        ({"arms": {"a/b": {}}}, "arms.a/b", "a/b", "letters", None),
        ({"arms": {"unet": {}}}, "arms", "unet", "baselines.arms has not", None),
        ({"model.variant": "other"}, "model.variant", "'other'", "satjepa | published", None),
        ({"model.use_jepa": 1}, "model.use_jepa", "1 (int)", "true or false", None),
        ({"model.coarse_rgb": 30}, "model.coarse_rgb", "30", "multiple of 8", None),
        ({"model.encoder.heads": 3}, "model.encoder.dim", "128", "heads (3)", None),
        ({"sample.strength": 0.0}, "sample.strength", "0.0", "above 0", None),
    ],
)
def test_a_wrong_value_is_named(
    write, changes: dict, key: str, found: str, accepted: str, nearest: str | None
):
    path = write(changes)
    with pytest.raises(ConfigError) as caught:
        load_params(path)
    error = caught.value
    assert (error.key, error.nearest, error.source) == (key, nearest, path)
    assert found in error.found
    assert accepted in error.accepted
    assert str(error).startswith(f"{path}: {key}: found ")
    assert str(error).endswith(f"did you mean {nearest}?") == (nearest is not None)


def test_a_patch_that_the_layout_tokens_do_not_fit_is_refused_with_the_cure(write):
    """When the file is read, not when the model is built."""
    for changes in ({"data.patch": 128}, {"model.encoder.patch": 16}):
        with pytest.raises(ConfigError) as caught:
            load_params(write(changes))
        assert caught.value.key == "data.patch" and "backbone.layout: null" in caught.value.accepted
    assert load_params(write({"data.patch": 128, "backbone.layout": None})).data.patch == 128
    with pytest.raises(ConfigError, match=r"arms\.odd\.data\.patch"):
        load_params(write({"arms": {"ours": {}, "odd": {"model.encoder.patch": 16}}}))


def test_the_file_itself(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        load_params(tmp_path / "absent.yaml")
    for text, found in [("a: [1", "line 1"), ("", "None"), ("- 1", "list")]:
        (tmp_path / "params.yaml").write_text(text)
        with pytest.raises(ConfigError, match=found):
            load_params(tmp_path / "params.yaml")


def test_an_int_is_a_float_where_a_float_is_asked_for(write):
    one = load_params(write({"loss.l1": 20}, "a.yaml"))
    point = load_params(write({"loss.l1": 20.0}, "b.yaml"))
    assert isinstance(one.loss.l1, float)
    assert digest(one) == digest(point)


def test_null_only_where_it_means_something(write):
    assert load_params(write({"backbone.layout": None})).backbone.layout is None
    with pytest.raises(ConfigError, match=r"backbone\.path"):
        load_params(write({"backbone.path": None}))


def test_an_arm_changes_its_keys_and_nothing_else(write):
    arms = {"ours": {}, "bare": {"model.use_captions": False, "train.steps": 7}}
    path = write({"arms": arms})
    plain, ours, bare = (load_params(path, arm) for arm in (None, "ours", "bare"))
    assert ours == plain and plain.model.use_captions
    expected = plain.as_dict()
    expected["model"]["use_captions"] = False
    expected["train"]["steps"] = 7
    assert bare.as_dict() == expected


def test_a_wrong_arm_is_named_even_if_another_is_loaded(write):
    path = write({"arms": {"full": {}, "bare": {"model.use_captoins": False}}})
    with pytest.raises(ConfigError) as caught:
        load_params(path, "full")
    assert caught.value.key == "arms.bare.model.use_captoins"
    assert caught.value.nearest == "model.use_captions"
    with pytest.raises(ConfigError, match=r"did you mean arms\.no_jepa"):
        load_params(REPO / "params.yaml", "nojepa")


@pytest.mark.parametrize(
    "key",
    [
        "sample.steps",
        "data.patch",
        "seed",
        "baselines.train.lr",
        "backbone.path",
        "captions.max_length",
    ],
)
def test_an_arm_may_change_what_is_trained_and_nothing_else(write, key: str):
    """What it forecasts with is for all alike, and the data are made once."""
    with pytest.raises(ConfigError, match="an arm changes what is trained") as caught:
        load_params(write({"arms": {"ours": {}, "odd": {key: 1}}}))
    assert caught.value.key == f"arms.odd.{key}"


def test_an_overlay_is_merged_into_its_base(write, tmp_path: Path):
    write({"seed": 11})
    (tmp_path / "params.mine.yaml").write_text(
        "base: params.yaml\ntrain: {steps: 7}\narms: {full: null, long: {train.steps: 9}}\n"
        "baselines: {arms: {unet: null, trend: {title: A line}}}\n"
        "data: {presets: [mine]}\nbackbone: {layout: null}\n"
    )
    params = load_params(tmp_path / "params.mine.yaml")
    assert (params.seed, params.train.steps, params.data.presets) == (11, 7, ("mine",))
    assert "full" not in params.arms and params.arms["long"] == {"train.steps": 9}
    assert "unet" not in params.baselines.arms and params.baselines.title("trend") == "A line"
    assert params.backbone.layout is None and params.backbone.path  # null is a value elsewhere
    with pytest.raises(ConfigError) as caught:
        (tmp_path / "params.mine.yaml").write_text("base: params.yaml\ntrain: {step: 7}\n")
        load_params(tmp_path / "params.mine.yaml")
    assert (caught.value.key, caught.value.source) == ("train.step", tmp_path / "params.mine.yaml")
    (tmp_path / "params.mine.yaml").write_text("base: absent.yaml\n")
    with pytest.raises(ConfigError, match="no such file"):
        load_params(tmp_path / "params.mine.yaml")


@pytest.mark.parametrize("base", ["3", "", "params.mine.yaml", "chain.yaml", "list.yaml"])
def test_a_base_is_one_file_that_has_none(write, tmp_path: Path, base: str):
    write({"seed": 11})
    (tmp_path / "chain.yaml").write_text("base: params.yaml\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "params.mine.yaml").write_text(f"base: {base}\nseed: 1\n")
    with pytest.raises(ConfigError, match="the name of a params file beside this one") as caught:
        load_params(tmp_path / "params.mine.yaml")
    assert (caught.value.key, caught.value.source) == ("base", tmp_path / "params.mine.yaml")


@pytest.mark.parametrize("where", ["arms", "baselines.arms"])
def test_what_is_left_out_must_be_there(where: str):
    base = {"arms": {"full": {}}, "baselines": {"arms": {"unet": {}}}}
    changes: dict = {"uent": None}
    for name in reversed(where.split(".")):
        changes = {name: changes}
    with pytest.raises(ConfigError, match="to leave it out") as caught:
        merged(base, changes)
    assert caught.value.key == f"{where}.uent"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model.context_merge": 2}, "model.context_merge"),  # its layout gives the tokens
        ({"model.coarse_rgb": 32, "model.use_jepa": False}, "model.coarse_rgb"),
        ({"captions.lengths": [8, 8, 49]}, "captions.lengths"),
    ],
)
def test_what_does_not_go_together_is_refused_when_it_is_read(write, changes: dict, key: str):
    with pytest.raises(ConfigError) as caught:
        load_params(write({}), **changes)
    assert caught.value.key.endswith(key.split(".")[1])


def test_merging_changes_neither_side():
    base = {"a": {"b": [1]}, "arms": {"x": {"k": 1}, "y": {}}}
    changes = {"a": {"c": 2}, "arms": {"x": {"l": 3}, "y": None}}
    assert merged(base, changes) == {"a": {"b": [1], "c": 2}, "arms": {"x": {"k": 1, "l": 3}}}
    assert base == {"a": {"b": [1]}, "arms": {"x": {"k": 1}, "y": {}}}


def test_a_file_that_dvc_has_rewritten_says_the_same(tmp_path: Path):
    """DVC writes YAML 1.2, in which `no` and `on` are words, and 1e-3 is a number."""
    from ruamel.yaml import YAML

    yaml12 = YAML()
    for path in PATHS:
        values = yaml12.load(path.read_text())
        (tmp_path / "params.yaml").write_text((REPO / "params.yaml").read_text())
        with open(tmp_path / path.name, "w") as file:
            yaml12.dump(values, file)
        assert load_params(tmp_path / path.name) == load_params(path)
    values = yaml12.load((REPO / "params.yaml").read_text())
    values["data"]["presets"] = ["no", "on", "2023", "1e3"]
    values["train"]["lr"] = 1e-3
    with open(tmp_path / "params.yaml", "w") as file:
        yaml12.dump(values, file)
    params = load_params(tmp_path / "params.yaml")
    assert params.data.presets == ("no", "on", "2023", "1e3") and params.train.lr == 1e-3


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_no_value_is_read_differently_by_two_versions_of_yaml(path: Path):
    from ruamel.yaml import YAML

    text = path.read_text()
    assert yaml.safe_load(text) == YAML(typ="safe", pure=True).load(text)


def test_overrides_come_last_and_are_checked():
    path = REPO / "params.yaml"
    params = load_params(path, "no_jepa", seed=3, **{"train.steps": 5, "model.encoder.depth": 1})
    assert (params.seed, params.train.steps, params.model.encoder.depth) == (3, 5, 1)
    assert load_params(path, seed=None) == load_params(path)
    for key in ("model.encodr.depth", "seed.x"):
        with pytest.raises(ConfigError, match=key.split(".")[0]) as caught:
            load_params(path, **{key: 1})
        assert caught.value.source is None  # it is not the file that is wrong


def test_the_environment_chooses_the_file(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write({"seed": 11})
    write({"seed": 12}, "params.table.yaml")
    (as_checkout(tmp_path) / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv("SATJEPA_PARAMS", raising=False)
    assert load_params().seed == 11
    monkeypatch.setenv("SATJEPA_PARAMS", "params.table.yaml")
    assert load_params().seed == 12


def test_digest_sees_values_not_their_order():
    params = load_params(REPO / "params.yaml")
    # sha256 of {"a":1,"b":[2,3]}
    known = "efbd0040190fb0871831e606c581f8a66db79d8e2bb836745a70051306956070"
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1}) == known
    assert digest(params) == digest(params.as_dict()) == digest(from_dict(params.as_dict()))
    assert digest(params) != digest(load_params(REPO / "params.yaml", seed=1))


def test_valid_keys_are_those_of_the_file():
    values = yaml.safe_load((REPO / "params.yaml").read_text())
    keys = set(valid_keys(Params))
    assert {"seed", "model", "model.encoder.dim", "arms", "baselines.train.lr"} <= keys
    assert {key for key in keys if "." not in key} == set(values)


def test_reading_parameters_does_not_import_torch():
    code = (
        "import sys, satjepa.config, satjepa.pipeline.run_notebook; sys.exit(any(m in "
        "sys.modules for m in ('torch', 'papermill')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode == 0
