"""The `baselines` section is read as strictly as the rest of params.yaml."""

from pathlib import Path

import pytest
import yaml

from satjepa.config import ConfigError, Params, from_dict, load_params
from satjepa.config.baselines import arm_names, read_arm

REPO = Path(__file__).resolve().parents[2]
MCVD = {
    "width": 8, "mult": [1, 1, 2], "blocks": 1, "attention": [16], "spade_dim": 0, "dropout": 0.0,
    "history": 0, "mask_embedding": False, "mask": 0.0, "sampler": "ddim", "steps": 10,
    "denoise": "none", "clip": True,
}  # fmt: skip
PREDRNN = {
    "hidden": 8, "layers": 2, "kernel": 5, "patch": 4, "layer_norm": False, "decouple": 0.1,
    "sampling": "none", "sampling_at": [1, 2, 3], "history": 0,
}  # fmt: skip
SD35 = {
    "levels": "img2img", "steps": 20, "strength": 0.6, "guidance": 1.0, "work_size": 0,
    "prompt": None, "timesteps": [0.0, 1.0], "caption_dropout": 0.1,
}  # fmt: skip


def values_with(changes: dict) -> dict:
    """params.yaml with dotted changes below `baselines`; a value of `...` removes the key."""
    values = yaml.safe_load((REPO / "params.yaml").read_text())
    for key, value in changes.items():
        *sections, leaf = key.split(".")
        node = values["baselines"]
        for section in sections:
            node = node[section]
        if value is ...:
            del node[leaf]
        else:
            node[leaf] = value
    return values


def params_with(changes: dict) -> Params:
    return from_dict(values_with(changes))


@pytest.mark.parametrize("path", sorted(REPO.glob("params*.yaml")), ids=lambda p: p.name)
def test_every_arm_of_every_params_file_is_valid(path: Path):
    params = load_params(path)
    arms = {name: read_arm(params, name) for name in arm_names(params)}
    assert {"climatology", "trend", "unet", "simvp"} <= {arm.kind for arm in arms.values()}
    assert [arm.train is None for arm in arms.values()][:3] == [True, True, False]


def test_the_table_has_every_kind_and_the_demo_what_takes_minutes():
    kinds = []
    for name in ("params.yaml", "params.table.yaml"):
        params = load_params(REPO / name)
        kinds.append([read_arm(params, arm).kind for arm in arm_names(params)])
    assert kinds[0] == ["climatology", "trend", "unet", "simvp"]
    assert set(kinds[1]) == {"climatology", "trend", "unet", "simvp", "predrnn", "mcvd", "sd35"}


def test_an_arm_changes_what_it_says_of_the_common_training():
    params = params_with(
        {"train.batch": 5, "arms.unet.train": {"lr": 3e-3, "steps": 50, "val_every": 10}}
    )
    arm = read_arm(params, "unet")
    assert (arm.train.batch, arm.train.lr, arm.train.steps, arm.train.val_every) == (
        5,
        3e-3,
        50,
        10,
    )
    assert read_arm(params, "simvp").train.lr == params.baselines["train"]["lr"]
    assert read_arm(params, "trend").train is None and read_arm(params, "trend").model == {}


def test_sd35_is_trained_where_it_says_how():
    arms = {
        "arms.sd35": {"kind": "sd35", "model": SD35},
        "arms.tuned": {"kind": "sd35", "model": SD35, "train": {}},
    }
    params = params_with(arms)
    assert read_arm(params, "sd35").train is None and read_arm(params, "tuned").train is not None


def test_a_list_may_hold_a_number_twice():
    params = params_with({"arms.mcvd": {"kind": "mcvd", "model": MCVD}})
    assert read_arm(params, "mcvd").model["mult"] == (1, 1, 2)


def test_no_baselines_are_fine():
    values = values_with({})
    assert from_dict(values | {"baselines": {}}).baselines == {}


@pytest.mark.parametrize(
    ("changes", "key", "accepted"),
    [
        ({"arm": {}}, "arm", "train, arms"),
        ({"train.step": 1}, "train.step", "steps"),
        ({"train.lr": "1e-3"}, "train.lr", "1.0e-3"),
        ({"train.ema": 1.5}, "train.ema", "at most 1"),
        ({"arms": ["unet"]}, "arms", "a mapping"),
        ({"arms.unet": 3}, "arms.unet", "a mapping"),
        ({"arms.unet.kind": "unett"}, "arms.unet.kind", "climatology | trend | unet"),
        ({"arms.unet.kind": ...}, "arms.unet.kind", "climatology | trend | unet"),
        ({"arms.unet.size": 1}, "arms.unet.size", "kind, title, model, train"),
        ({"arms.unet.title": 3}, "arms.unet.title", "a text"),
        ({"arms.unet.model": 3}, "arms.unet.model", "width"),
        ({"arms.unet.model": ...}, "arms.unet.model.width", "every key"),
        ({"arms.unet.model.widht": 8}, "arms.unet.model.widht", "width"),
        ({"arms.unet.model.width": 6}, "arms.unet.model.width", "a multiple of 4"),
        ({"arms.unet.model.levels": 1}, "arms.unet.model.levels", "at least 2"),
        ({"arms.unet.train": 3}, "arms.unet.train", "a mapping"),
        ({"arms.unet.train": {"lr": 0}}, "arms.unet.train.lr", "above 0"),
        ({"arms.unet.train": {"rate": 1}}, "arms.unet.train.rate", "lr"),
        ({"arms.unet.train": {"val_every": 7}}, "arms.unet.train.val_every", "a divisor of 300"),
        ({"arms.trend.train": {}}, "arms.trend.train", "trend is not trained"),
        ({"arms.trend.model": {"width": 1}}, "arms.trend.model.width", ""),
        ({"arms.u/v": {"kind": "trend"}}, "arms.u/v", "letters"),
        ({"arms.simvp.model.n_s": 3}, "arms.simvp.model.n_s", "an even number"),
        ({"arms.simvp.model.n_t": 1}, "arms.simvp.model.n_t", "at least 2"),
        ({"arms.simvp.model.drop_path": 2.0}, "arms.simvp.model.drop_path", "at most 1"),
        (
            {"arms.p": {"kind": "predrnn", "model": PREDRNN | {"kernel": 4}}},
            "arms.p.model.kernel",
            "odd",
        ),
        (
            {"arms.p": {"kind": "predrnn", "model": PREDRNN | {"sampling_at": [2, 2, 1]}}},
            "arms.p.model.sampling_at",
            "<",
        ),
        (
            {"arms.m": {"kind": "mcvd", "model": MCVD | {"steps": 30}}},
            "arms.m.model.steps",
            "a divisor of 1000",
        ),
        (
            {"arms.m": {"kind": "mcvd", "model": MCVD | {"mult": []}}},
            "arms.m.model.mult",
            "one or more",
        ),
        (
            {"arms.s": {"kind": "sd35", "model": SD35 | {"strength": 0.0}}},
            "arms.s.model.strength",
            "above 0",
        ),
    ],
)
def test_a_wrong_value_is_named(changes: dict, key: str, accepted: str):
    with pytest.raises(ConfigError) as caught:
        from_dict(values_with(changes))
    assert caught.value.key == f"baselines.{key}" and accepted in caught.value.accepted


@pytest.mark.parametrize(
    ("changes", "key", "accepted"),
    [
        (
            {"arms.unet.model.levels": 8},
            "arms.unet.model.levels",
            "data.patch (64) is a multiple of 2^(levels-1)",
        ),
        ({"arms.unet.model.history": 3}, "arms.unet.model.history", "at most data.history (2)"),
        ({"arms.simvp.model.n_s": 14}, "arms.simvp.model.n_s", "2^(n_s/2)"),
        (
            {"arms.p": {"kind": "predrnn", "model": PREDRNN | {"patch": 5}}},
            "arms.p.model.patch",
            "multiple of patch",
        ),
        (
            {"arms.m": {"kind": "mcvd", "model": MCVD | {"mult": [1] * 8}}},
            "arms.m.model.mult",
            "2^(levels-1)",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_named_where_the_arm_is_read(
    changes: dict, key: str, accepted: str
):
    """Not before: a run with shorter history or other patches that uses no such arm must not be
    refused.
    """
    params = params_with(changes)
    with pytest.raises(ConfigError) as caught:
        read_arm(params, key.split(".")[1])
    assert caught.value.key == f"baselines.{key}" and accepted in caught.value.accepted


def test_a_misspelled_key_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        from_dict(values_with({"arms.unet.model.widht": 8}))
    assert caught.value.nearest == "baselines.arms.unet.model.width"
    with pytest.raises(ConfigError, match="unet, simvp"):
        read_arm(load_params(REPO / "params.yaml"), "unett")
