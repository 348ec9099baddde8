"""The `baselines` section is read as strictly as the rest of params.yaml."""

from pathlib import Path

import pytest
import yaml

from satjepa.config import ConfigError, Params, from_dict, load_params

REPO = Path(__file__).resolve().parents[2]
MCVD = {
    "kind": "mcvd", "model": {
        "width": 8, "mult": [1, 1, 2], "blocks": 1, "attention": [16], "spade_dim": 0,
        "dropout": 0.0, "history": 0, "mask_embedding": False, "mask": 0.0,
    }, "train": {}, "sample": {"sampler": "ddim", "steps": 10, "denoise": "none", "clip": True},
}  # fmt: skip
PREDRNN = {
    "kind": "predrnn", "model": {
        "hidden": 8, "layers": 2, "kernel": 5, "patch": 4, "layer_norm": False, "decouple": 0.1,
        "sampling": "none", "sampling_at": [1, 2, 3], "history": 0,
    }, "train": {}, "sample": {},
}  # fmt: skip
SAMPLE = {
    "levels": "img2img", "steps": 20, "strength": 0.6, "guidance": 1.0, "work_size": 0,
    "prompt": None,
}  # fmt: skip
SD35 = {"kind": "sd35", "model": {}, "train": {}, "sample": SAMPLE}
TUNED = {
    "kind": "sd35_lora", "model": {"timesteps": [0.0, 1.0], "caption_dropout": 0.1}, "train": {},
    "sample": SAMPLE,
}  # fmt: skip


def changed(arm: dict, part: str, **values: object) -> dict:
    """An arm with other values in one of its parts."""
    return arm | {part: arm[part] | values}


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
    arms = [params.baselines.read(name, params.data) for name in params.baselines.arms]
    assert {"climatology", "trend", "unet", "simvp"} <= {arm.kind for arm in arms}
    fits = [params.baselines.fit(name) for name in params.baselines.arms]
    assert [arm.trained for arm in arms] == [fit is not None for fit in fits]


def test_the_table_has_every_kind_and_the_demo_what_takes_minutes():
    kinds = []
    for name in ("params.yaml", "params.table.yaml"):
        arms = load_params(REPO / name).baselines.arms
        kinds.append([arm.kind for arm in arms.values()])
    assert kinds[0] == ["climatology", "trend", "unet", "simvp"]
    more = {"predrnn", "mcvd", "sd35", "sd35_lora"}
    assert set(kinds[1]) == set(kinds[0]) | more


def test_an_arm_changes_what_it_says_of_the_common_training():
    own = {"lr": 3e-3, "steps": 50, "val_every": 10}
    baselines = params_with({"train.batch": 5, "arms.unet.train": own}).baselines
    fit = baselines.fit("unet")
    assert (fit.batch, fit.lr, fit.steps, fit.val_every) == (5, 3e-3, 50, 10)
    assert baselines.fit("simvp").lr == baselines.train.lr
    assert baselines.fit("trend") is None


def test_sd35_is_trained_where_it_has_a_lora():
    baselines = params_with({"arms.sd35": SD35, "arms.tuned": TUNED}).baselines
    assert baselines.fit("sd35") is None and baselines.fit("tuned") == baselines.train
    assert baselines.arms["tuned"].ensemble and not baselines.arms["unet"].ensemble


def test_a_list_may_hold_a_number_twice():
    assert params_with({"arms.mcvd": MCVD}).baselines.arms["mcvd"].model.mult == (1, 1, 2)


def test_no_baselines_are_fine():
    assert params_with({"arms": {}}).baselines.arms == {}


def test_an_arm_without_a_title_is_called_by_its_name():
    baselines = params_with({"arms.unet.title": ...}).baselines
    assert (baselines.title("unet"), baselines.title("simvp")) == ("unet", "SimVP v2")


@pytest.mark.parametrize(
    ("changes", "key", "accepted"),
    [
        ({"arm": {}}, "arm", "train, baselines.arms"),
        ({"train.step": 1}, "train.step", "steps"),
        ({"train.lr": "1e-3"}, "train.lr", "float"),
        ({"train.ema": 1.5}, "train.ema", "at most 1"),
        ({"arms": ["unet"]}, "arms", "a mapping"),
        ({"arms.unet": 3}, "arms.unet", "a mapping"),
        ({"arms.unet.kind": "unett"}, "arms.unet.kind", "climatology | trend | unet"),
        ({"arms.unet.kind": ...}, "arms.unet.kind", "climatology | trend | unet"),
        ({"arms.unet.size": 1}, "arms.unet.size", "kind"),
        ({"arms.unet.title": 3}, "arms.unet.title", "text"),
        ({"arms.unet.model": 3}, "arms.unet.model", "width"),
        ({"arms.unet.model": ...}, "arms.unet.model", "every key"),
        ({"arms.unet.model.width": ...}, "arms.unet.model.width", "every key"),
        ({"arms.unet.model.widht": 8}, "arms.unet.model.widht", "width"),
        ({"arms.unet.model.width": 6}, "arms.unet.model.width", "a multiple of 4"),
        ({"arms.unet.model.levels": 1}, "arms.unet.model.levels", "at least 2"),
        ({"arms.unet.train": 3}, "arms.unet.train", "a mapping"),
        ({"arms.unet.train": {"lr": 0}}, "arms.unet.train.lr", "above 0"),
        ({"arms.unet.train": {"rate": 1}}, "arms.unet.train.rate", "lr"),
        ({"arms.unet.train": {"val_every": 7}}, "arms.unet.train.val_every", "a divisor of 300"),
        ({"arms.trend.train": {"lr": 1.0}}, "arms.trend.train.lr", ""),
        ({"arms.trend.model": {"width": 1}}, "arms.trend.model.width", ""),
        (
            {"arms.u/v": {"kind": "trend", "model": {}, "train": {}, "sample": {}}},
            "arms.u/v",
            "letters",
        ),
        ({"arms.simvp.model.n_s": 3}, "arms.simvp.model.n_s", "a multiple of 2"),
        ({"arms.simvp.model.n_t": 1}, "arms.simvp.model.n_t", "at least 2"),
        ({"arms.simvp.model.drop_path": 2.0}, "arms.simvp.model.drop_path", "at most 1"),
        ({"arms.p": changed(PREDRNN, "model", kernel=4)}, "arms.p.model.kernel", "odd"),
        (
            {"arms.p": changed(PREDRNN, "model", sampling_at=[2, 2, 1])},
            "arms.p.model.sampling_at",
            "<",
        ),
        ({"arms.m": changed(MCVD, "sample", steps=30)}, "arms.m.sample.steps", "a divisor of 1000"),
        ({"arms.m": changed(MCVD, "model", mult=[])}, "arms.m.model.mult", "one or more"),
        ({"arms.s": changed(SD35, "sample", strength=0.0)}, "arms.s.sample.strength", "above 0"),
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
            "data.patch (64) is a multiple of 128",
        ),
        ({"arms.unet.model.history": 3}, "arms.unet.model.history", "at most data.history (2)"),
        ({"arms.simvp.model.n_s": 14}, "arms.simvp.model.n_s", "multiple of 128"),
        ({"arms.p": changed(PREDRNN, "model", patch=5)}, "arms.p.model.patch", "multiple of 5"),
        ({"arms.m": changed(MCVD, "model", mult=[1] * 8)}, "arms.m.model.mult", "multiple of 128"),
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
        params.baselines.read(key.split(".")[1], params.data)
    assert caught.value.key == f"baselines.{key}" and accepted in caught.value.accepted


def test_a_misspelled_key_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        from_dict(values_with({"arms.unet.model.widht": 8}))
    assert caught.value.nearest == "baselines.arms.unet.model.width"
    with pytest.raises(ConfigError, match="unet, simvp"):
        params = load_params(REPO / "params.yaml")
        params.baselines.read("unett", params.data)
