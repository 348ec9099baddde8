"""The published checkpoint as our folder and as a model: the same bits, the same forecast.

And no score.
"""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from published_files import COARSE, CONFIG, DIMS, TOKEN, content, difference, saved, without_extras
from typer.testing import CliRunner

from satjepa import assemble, cli
from satjepa.config import from_dict
from satjepa.data.splits import LeakError
from satjepa.published.checkpoint import read_published, without_tokens, write_published
from satjepa.published.convert import convert, from_folder, load_published, to_folder
from satjepa.published.dims import PublishedError
from satjepa.published.names import LORA
from satjepa.published.settings import SD35, params_of
from satjepa.training import checkpoint, provenance
from satjepa.training.checkpoint import CheckpointError

TINY = "assets/tiny_sd3"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory):
    """A caption-guided file with everything in it, read."""
    return read_published(saved(content(), tmp_path_factory.mktemp("file") / "a.pth.tar"))


@pytest.fixture(scope="module")
def batch() -> dict:
    """Two patches without anything of year t+1."""
    torch.manual_seed(5)
    text = {"hidden": torch.randn(2, 3, 77, 128), "pooled": torch.randn(2, 3, 128)}
    meta = [
        {"preset": "p", "region": "R", "year": 2020, "x": 64 * i, "y": 0, "aug": 0}
        for i in range(2)
    ]
    mask = torch.ones(2, 3, 77, dtype=torch.bool)
    return {"rgb_t": torch.rand(2, 3, 64, 64), "text_t": text | {"mask": mask}, "meta": meta}


def run(*words: object):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.mark.parametrize(("dims", "half"), [(DIMS, False), (DIMS, True), (COARSE, False)])
def test_a_folder_gives_back_every_bit(tmp_path: Path, dims: object, half: bool) -> None:
    made = content(dims, dual=2, half=half)
    path = saved(made, tmp_path / "a.pth.tar")
    assert convert(path, tmp_path / "folder") == tmp_path / "folder"
    assert convert(tmp_path / "folder", tmp_path / "b.pth.tar") == tmp_path / "b.pth.tar"
    made["config"] = without_tokens(made["config"])
    assert not difference(made, torch.load(tmp_path / "b.pth.tar", weights_only=True))
    files = [file.read_bytes() for file in (tmp_path / "folder").iterdir()]
    assert not any(TOKEN.encode() in file for file in files)
    header = checkpoint.read_header(tmp_path / "folder")
    assert header["split"] == header["backbone"] == checkpoint.UNKNOWN
    assert header["config"]["model"]["variant"] == "published"
    assert checkpoint.load(tmp_path / "folder").tensors["encoder.blocks.1.attn.kv.bias"].shape == (
        256,
    )


def test_a_file_without_extras_comes_back_without(tmp_path: Path) -> None:
    made = without_extras()
    to_folder(read_published(saved(made, tmp_path / "a.pth.tar")), tmp_path / "folder")
    assert not difference(made, from_folder(tmp_path / "folder"))


def test_parameters_are_read_off_the_shapes(published, tmp_path: Path) -> None:
    params = params_of(published)
    m = params.model
    b = params.backbone
    assert (params.data.patch, m.encoder.patch, m.encoder.dim, m.encoder.depth) == (64, 8, 128, 2)
    assert (m.predictor.dim, m.predictor.depth, m.adapter.dim) == (64, 2, 24)
    assert (m.forecaster.dim, m.forecaster.layers) == (32, 2)
    assert m.encoder.heads == m.predictor.heads == 2 and m.adapter.heads == m.forecaster.heads == 8
    assert m.use_captions and m.use_jepa and m.coarse_rgb == 0 and params.captions.max_length == 77
    assert (b.path, b.layout, b.lora_rank, b.lora_alpha) == (TINY, None, 4, 8.0)
    assert b.lora_targets == ("to_q", "to_k", "to_v", "to_out.0")
    assert (params.sample.steps, params.sample.strength, params.sample.guidance) == (20, 0.35, 1.0)
    assert params_of(published, "elsewhere").backbone.path == "elsewhere"

    def but(dims: object = published.dims, **changes: object):
        return params_of(
            dataclasses.replace(published, content=published.content | changes, dims=dims)
        )

    assert but(config={"meta": {"lora_alpha": 5}}).backbone.lora_alpha == 5.0
    assert but(config=None).backbone.lora_alpha == 8.0
    vit_base = published.dims._replace(token_dim=768, predictor_dim=384, joint_dim=4096)
    assert but(vit_base).model.encoder.heads == 12 and but(vit_base).backbone.path == SD35
    own = from_dict(
        params.as_dict() | {"seed": 5, "model": params.as_dict()["model"] | {"variant": "satjepa"}}
    )
    again = but(config={"satjepa": own.as_dict()})
    assert again.seed == 5 and again.model.variant == "published"
    coarse = params_of(read_published(saved(content(COARSE), tmp_path / "c.pth.tar"))).model
    assert coarse.coarse_rgb == 32 and not coarse.use_captions


@pytest.mark.parametrize("kind", ["caption", "half", "coarse", "without captions"])
def test_file_folder_and_model_forecast_the_same(kind: str, batch: dict, tmp_path: Path) -> None:
    made = content(COARSE if kind == "coarse" else DIMS, half=kind == "half", optimizer=False)
    if kind == "without captions":
        del made["caption_forecaster"]
    path = saved(made, tmp_path / "a.pth.tar")
    direct = load_published(read_published(path))
    first = direct.forecast(batch, 2, seed=3)
    assert first.shape == (2, 2, 3, 64, 64) and first.std() > 0.01
    state = direct.state()
    assert torch.equal(state["encoder.patches.weight"], made["encoder"]["patch_embed.proj.weight"])
    assert torch.equal(
        direct.encoder.positions, made["encoder"]["pos_embed"][0]
    )  # the file's own, not ours
    name = "transformer_blocks.3.attn.to_out.0.lora_B.default.weight"
    layer = state[f"backbone.transformer.{name}"]
    assert (
        torch.equal(layer, made[LORA][f"base_model.model.{name}"].float())
        and layer.dtype == torch.float32
    )
    assert not any(parameter.is_meta for parameter in direct.parameters())
    convert(path, tmp_path / "folder")
    model = assemble.load_model(tmp_path / "folder")
    assert torch.equal(model.forecast(batch, 2, seed=3), first)
    assert torch.equal(model.predictor.positions, direct.predictor.positions)
    for loaded in (direct, model):
        assert loaded.reads_padding and not loaded.training
        with pytest.raises(LeakError, match="not known here what this checkpoint was trained on"):
            loaded.trained_on.assert_unseen(batch["meta"])


def test_a_model_trained_here_is_exported_with_its_averages(
    batch: dict, tmp_path: Path, published
) -> None:
    params = params_of(published)
    model = assemble.build_model(params, seed=1).eval()
    model.average_weights(0.9)
    with torch.no_grad():
        for name in model._average:  # as after a step: the average lags behind
            model._average[name] += 0.01 * torch.randn(model._average[name].shape)
    first = model.forecast(batch, 1, seed=2)
    backbone = provenance.hash_module(model.backbone, frozen_only=True)
    header = provenance.make_header(params.as_dict(), "s" * 64, backbone)
    checkpoint.save(tmp_path / "model", model.state(), header, {"step": 5}, {})
    out = convert(tmp_path / "model", tmp_path / "a.pth.tar")
    again = load_published(read_published(out))
    assert torch.equal(again.forecast(batch, 1, seed=2), first)
    assert again.params.model == params.model and again.params.seed == params.seed
    extras = torch.load(out, weights_only=True)
    assert list(extras) == [
        "encoder", "predictor", "target_encoder", "proj_head", "cond_adapter", "prompt_embeds",
        "pooled_prompt_embeds", "optimizer", "scaler", "epoch", "best_val_loss", "config",
        "use_lora", "caption_forecaster", "lora_state_dict",
    ]  # fmt: skip
    assert (
        extras["prompt_embeds"].shape == (1, 77, 128) and not extras["pooled_prompt_embeds"].any()
    )
    assert torch.equal(extras["encoder"]["pos_embed"][0], model.encoder.positions)


def test_what_does_not_fit_is_refused(published, tmp_path: Path) -> None:
    wide = saved(content(DIMS._replace(joint_dim=96), optimizer=False), tmp_path / "wide.pth.tar")
    with pytest.raises(
        PublishedError,
        match=r"for context and pooled widths \(96, 128\); .*tiny_sd3 has \(128, 128\)",
    ):
        load_published(read_published(wide))
    dual = saved(content(dual=1, optimizer=False), tmp_path / "dual.pth.tar")
    with pytest.raises(
        PublishedError, match=r"lora_state_dict is not for the transformer of .*: `.*0\.attn2\.to_k"
    ):
        load_published(read_published(dual))
    convert(dual, tmp_path / "dual")
    with pytest.raises(
        CheckpointError, match=r"dual does not fit the model on the backbone .*attn2"
    ):
        assemble.load_model(tmp_path / "dual")
    convert(wide, tmp_path / "wide")
    with pytest.raises(
        CheckpointError, match=r"wide does not fit the model on the backbone .*size mismatch"
    ):
        assemble.load_model(tmp_path / "wide")
    found = checkpoint.load(tmp_path / "wide")
    del found.tensors["adapter.stream_fusion.in_proj_bias"]
    checkpoint.save(tmp_path / "part", found.tensors, found.header, {"step": 0}, {})
    with pytest.raises(
        PublishedError, match=r"cond_adapter has no tensor `stream_fusion.in_proj_bias`"
    ):
        from_folder(tmp_path / "part")
    ours = params_of(published).as_dict() | {
        "model": params_of(published).as_dict()["model"] | {"variant": "satjepa"}
    }
    checkpoint.save(tmp_path / "ours", {}, provenance.make_header(ours, "s", "b"), {"step": 0}, {})
    with pytest.raises(
        PublishedError, match="holds the variant 'satjepa'; only the variant 'published'"
    ):
        from_folder(tmp_path / "ours")


def test_the_command_goes_both_ways_and_overwrites_nothing(published, tmp_path: Path) -> None:
    result = run("convert", published.path, tmp_path / "folder", "--backbone", TINY)
    assert result.exit_code == 0 and f"wrote {tmp_path / 'folder'}" in result.output, result.output
    assert checkpoint.read_header(tmp_path / "folder")["config"]["backbone"]["path"] == TINY
    result = run("convert", tmp_path / "folder", tmp_path / "b.pth.tar")
    assert result.exit_code == 0 and read_published(tmp_path / "b.pth.tar").dims == DIMS
    config = json.loads((tmp_path / "folder/state.json").read_text())["published"]["config"]
    assert config == without_tokens(CONFIG)
    (tmp_path / "precious").mkdir()
    bad = tmp_path / "bad.pth.tar"
    bad.write_bytes(published.path.read_bytes()[:5000])
    for words, says in [
        (
            (published.path, tmp_path / "precious"),
            "precious exists already: remove it, or name another place",
        ),
        ((tmp_path / "folder", tmp_path / "b.pth.tar"), "b.pth.tar exists already"),
        ((bad, tmp_path / "new"), "not a whole published checkpoint: it is truncated"),
        ((tmp_path / "gone", tmp_path / "new"), "No such file"),
        ((tmp_path / "precious", tmp_path / "new"), "no checkpoint at"),
    ]:
        result = run("convert", *words)
        assert (
            result.exit_code == 2 and says in result.output and "Traceback" not in result.output
        ), result.output
    assert (tmp_path / "precious").is_dir() and not (tmp_path / "new").exists()


def test_writing_over_the_file_that_is_mapped_is_safe(tmp_path: Path) -> None:
    made = content(optimizer=False)
    path = saved(made, tmp_path / "a.pth.tar")
    read = read_published(path)
    write_published(read.content, path)
    made["config"] = without_tokens(made["config"])
    assert not difference(made, read.content) and not difference(made, read_published(path).content)
