"""params.yaml is read strictly: what is accepted, what is refused, and how the refusal reads."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from reach import as_checkout

from satjepa.config import Params, digest, from_dict, load_params
from satjepa.config.typed import ConfigError, valid_keys

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


def test_every_value_of_the_file_arrives_and_nothing_else():
    assert load_params(REPO / "params.yaml").as_dict() == yaml.safe_load(
        (REPO / "params.yaml").read_text()
    )


@pytest.mark.parametrize("path", sorted(REPO.glob("params*.yaml")), ids=lambda p: p.name)
def test_every_params_file_of_the_repository_is_valid(path: Path):
    assert load_params(path).ablate.arms


def test_params_are_frozen():
    params = load_params(REPO / "params.yaml")
    with pytest.raises(dataclasses.FrozenInstanceError):
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
        ({"train.lr": "1e-3"}, "train.lr", "'1e-3'", "1.0e-3", None),
        ({"train.lr": float("nan")}, "train.lr", "nan", "finite", None),
        ({"train.lr": True}, "train.lr", "True (bool)", "float", None),
        ({"train.lr": 0}, "train.lr", "0", "above 0", None),
        ({"train.warmup": 1.5}, "train.warmup", "1.5", "at most 1", None),
        ({"train.precision": False}, "train.precision", "False", 'write "no"', None),
        ({"train.target_ema": [0.99]}, "train.target_ema", "[0.99]", "list of 2", None),
        ({"train.target_ema": [1.0, 0.99]}, "train.target_ema", "[1.0, 0.99]", "from <= to", None),
        ({"data.history": 5}, "data.history", "5", "at most 4", None),
        ({"data.history": -1}, "data.history", "-1", "at least 0", None),
        ({"data.split": "regions"}, "data.split", "'regions'", "region | year | published", None),
        ({"data.root": ""}, "data.root", "''", "not empty", None),
        ({"data.presets": "strong"}, "data.presets", "'strong'", "a list", None),
        ({"data.presets": ["a", 1]}, "data.presets[1]", "1 (int)", "text", None),
        ({"data.patch": 60}, "data.patch", "60", "model.encoder.patch (8)", None),
        ({"ablate.seeds": []}, "ablate.seeds", "[]", "one or more", None),
        ({"ablate.seeds": [1, 1]}, "ablate.seeds", "[1, 1]", "twice", None),
        ({"ablate.arms": ["full"]}, "ablate.arms", "list", "mapping", None),
        ({"ablate.arms": {"a/b": {}}}, "ablate.arms", "a/b", "letters", None),
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


def test_an_arm_changes_its_keys_and_the_steps(write):
    path = write(
        {
            "ablate.arms": {
                "full": {},
                "bare": {"model.use_captions": False},
                "long": {"train.steps": 7},
            }
        }
    )
    plain, full, bare, long = (load_params(path, arm) for arm in (None, "full", "bare", "long"))
    assert plain.model.use_captions and plain.train.steps != plain.ablate.steps
    assert full == dataclasses.replace(
        plain, train=dataclasses.replace(plain.train, steps=plain.ablate.steps)
    )
    assert bare == dataclasses.replace(
        full, model=dataclasses.replace(full.model, use_captions=False)
    )
    assert long.train.steps == 7


def test_a_wrong_arm_is_named_even_if_another_is_loaded(write):
    path = write({"ablate.arms": {"full": {}, "bare": {"model.use_captoins": False}}})
    with pytest.raises(ConfigError) as caught:
        load_params(path, "full")
    assert caught.value.key == "ablate.arms.bare.model.use_captoins"
    assert caught.value.nearest == "model.use_captions"
    with pytest.raises(ConfigError, match=r"did you mean ablate\.arms\.no_jepa"):
        load_params(REPO / "params.yaml", "nojepa")


def test_overrides_come_last_and_are_checked():
    path = REPO / "params.yaml"
    params = load_params(path, "full", seed=3, **{"train.steps": 5, "model.encoder.depth": 1})
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
    assert {"seed", "model", "model.encoder.dim", "ablate.arms"} <= keys
    assert {key for key in keys if "." not in key} == set(values)
