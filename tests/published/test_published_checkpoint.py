"""The published file: its layout at full size, an exact round trip, and what is refused and why."""

import json
import os
import zipfile
from math import prod
from pathlib import Path

import pytest
import torch
from published_files import COARSE, CONFIG, DIMS, TOKEN, content, difference, saved, without_extras

from satjepa.published.checkpoint import read_published, without_tokens, write_published
from satjepa.published.dims import PublishedError, read_dims
from satjepa.published.layout import KEYS, check, expected
from satjepa.published.names import LORA, to_ours, to_published
from satjepa.training.checkpoint import CheckpointError


def meta(tensors: dict) -> dict:
    """Tensors without content from the rows of checkpoint_layout.json."""
    return {
        n: torch.empty(t["shape"], dtype=getattr(torch, t["dtype"]), device="meta")
        for n, t in tensors.items()
    }


@pytest.mark.parametrize("branch", ["caption", "coarse", "without captions"])
def test_the_layout_is_the_published_one_at_full_size(shared: Path, branch: str) -> None:
    layout = json.loads((shared / "reference/checkpoint_layout.json").read_text())
    assert list(KEYS) == layout["key_order_as_saved"]
    found = {
        name: meta(part) for name, part in layout["state_dicts"].items() if isinstance(part, dict)
    }
    found["target_encoder"] = dict(found["encoder"])
    if branch != "caption":
        del found["caption_forecaster"]
    if branch == "coarse":
        found["cond_adapter"] = meta(layout["coarse_rgb_main_branch"]["cond_adapter"])
        found[LORA] = {n: t[:8] if "lora_A" in n else t[:, :8] for n, t in found[LORA].items()}
    dims = read_dims(found)
    wanted = expected(dims, found[LORA])
    check(found, wanted)
    assert wanted.keys() == found.keys()
    for section, shapes in wanted.items():
        assert list(shapes.items()) == [
            (name, tuple(t.shape)) for name, t in found[section].items()
        ], section
    assert sum(map(prod, wanted["cond_adapter"].values())) == {"coarse": 166100480}.get(
        branch, 232181252
    )
    assert dims.coarse == (32 if branch == "coarse" else 0) and dims.lora_rank == (
        8 if branch == "coarse" else 16
    )


def test_names_translate_both_ways() -> None:
    made = content()
    ours = to_ours("encoder", made["encoder"])
    assert ours["encoder.positions"].shape == (64, 128) and "encoder.patches.weight" in ours
    qkv = made["encoder"]["blocks.1.attn.qkv.weight"]  # (384,128)
    assert torch.equal(ours["encoder.blocks.1.attn.q.weight"], qkv[:128])
    assert torch.equal(ours["encoder.blocks.1.attn.kv.weight"], qkv[128:])
    assert ours["encoder.blocks.0.mlp.2.bias"] is made["encoder"]["blocks.0.mlp.fc2.bias"]
    assert "predictor.embed.weight" in to_ours("predictor", made["predictor"])
    for section in ("encoder", "predictor", "target_encoder", "proj_head", "cond_adapter", LORA):
        back = to_published(
            section, to_ours(section, made[section]) | {"backbone.transformer.frozen": qkv}
        )
        assert not difference(made[section], back)


@pytest.mark.parametrize("dims", [DIMS, COARSE])
@pytest.mark.parametrize("half", [False, True])
def test_round_trip_is_bit_equal(tmp_path: Path, dims: object, half: bool) -> None:
    made = content(dims, dual=2, half=half)
    read = read_published(saved(made, tmp_path / "a.pth.tar"))
    assert list(read.content) == [key for key in KEYS if key in made]
    assert read.dims == dims
    made["config"] = without_tokens(made["config"])
    assert not difference(made, read.content)
    shuffled = dict(reversed(read.content.items()))
    out = write_published(shuffled, tmp_path / "sub" / "b.pth.tar")
    assert list(torch.load(out, weights_only=True)) == list(
        made
    )  # the published order, whatever the order given
    assert not difference(made, read_published(out).content)
    assert write_published(made, tmp_path / "c.pth.tar").read_bytes() == out.read_bytes()
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["b.pth.tar"]


def test_tensors_are_the_mapped_file_and_no_copies(tmp_path: Path) -> None:
    made = content(optimizer=False)
    path = saved(made, tmp_path / "a.pth.tar")
    bias = read_published(path).content["proj_head"]["bias"]
    stored = made["proj_head"]["bias"].numpy().tobytes()
    at = path.read_bytes().index(stored)
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(bytes(len(stored)))
    assert not bias.any()


def test_wrapped_names_and_missing_extras_are_read_alike(tmp_path: Path) -> None:
    made = without_extras()
    plain = read_published(saved(made, tmp_path / "plain.pth.tar"))
    wrapped = {
        key: {f"module.{n}": t for n, t in part.items()}
        for key, part in made.items()
        if key != LORA
    }
    read = read_published(saved(wrapped | {LORA: made[LORA]}, tmp_path / "wrapped.pth.tar"))
    assert not difference(made, plain.content) and not difference(made, read.content)


def test_no_token_passes(tmp_path: Path) -> None:
    path = saved(content(), tmp_path / "a.pth.tar")
    assert TOKEN.encode() in path.read_bytes()
    config = read_published(path).content["config"]
    assert TOKEN not in repr(config) and config["data"] == {
        "crop_size": 64, "hub": {}, "max_tokens": 77, "keys": ["other"],
    }  # fmt: skip
    assert config["meta"]["lora_alpha"] == 8 and config["optimization"] == CONFIG["optimization"]
    written = write_published(content(), tmp_path / "b.pth.tar")
    assert TOKEN.encode() not in written.read_bytes()
    assert without_tokens({"api_key": "x", "tokens": 3, "token": "y", "path": Path("z")}) == {
        "tokens": 3,
        "path": "z",
    }


def edits() -> dict:
    """What is done to a good content, and what the message must say of it."""
    norm = "blocks.1.norm1.weight"
    qkv = "blocks.0.attn.qkv.weight"
    first = "base_model.model.transformer_blocks.1.attn.to_q.lora_A.default.weight"

    def put(section: str, name: str, tensor: object):
        return lambda c: c[section].__setitem__(name, tensor)

    def drop(section: str, name: str):
        return lambda c: c[section].pop(name)

    return {
        "no section": (lambda c: c.pop("cond_adapter"), "key 'cond_adapter' is missing"),
        "no LoRA": (lambda c: c.pop(LORA), f"key '{LORA}' is missing"),
        "section of a list": (
            lambda c: c.update(encoder=[1]),
            "key 'encoder' is missing or no state dict",
        ),
        "foreign key": (lambda c: c.update(sd_state={}), "unknown key 'sd_state'"),
        "no tensor": (drop("encoder", norm), f"encoder has no tensor `{norm}`"),
        "none of a block": (
            lambda c: [c["predictor"].pop(n) for n in [*c["predictor"]] if "blocks.0." in n],
            "predictor has no tensor `predictor_blocks.0.norm1.weight`",
        ),
        "no norms at all": (
            lambda c: [c["predictor"].pop(n) for n in [*c["predictor"]] if "norm" in n],
            "predictor has no tensor `.*norm",
        ),
        "no LoRA of a layer": (drop(LORA, first), f"{LORA} has no tensor `{first}`"),
        "foreign LoRA": (
            put(LORA, "x", torch.ones(2, 2)),
            f"{LORA}: `x` is no tensor of this checkpoint",
        ),
        "unknown tensor": (
            put("proj_head", "scale", torch.ones(1)),
            "proj_head: `scale` is no tensor",
        ),
        "shape": (
            put("encoder", qkv, torch.ones(383, 128)),
            f"encoder: `{qkv}` has shape (383, 128), expected (384, 128)",
        ),
        "table": (
            put("encoder", "pos_embed", torch.ones(1, 63, 128)),
            "encoder: `pos_embed` has shape (1, 63, 128), expected (1, 64, 128)",
        ),
        "width": (
            put("target_encoder", norm, torch.ones(127)),
            f"target_encoder: `{norm}` has shape (127,), expected (128,)",
        ),
        "dtype": (
            lambda c: c["cond_adapter"].update(pooled_fusion_weights=torch.ones(4).double()),
            "cond_adapter: `pooled_fusion_weights` has dtype torch.float64, expected torch.float32",
        ),
        "dtype of one LoRA": (
            put(LORA, first, torch.ones(4, 160).bfloat16()),
            f"{LORA}: `{first}` has dtype torch.bfloat16, expected torch.float32",
        ),
        "number": (put("encoder", norm, 3.0), f"encoder: `{norm}` is no plain tensor (float)"),
        "no name": (put("encoder", 3, torch.ones(1)), "encoder: `3` is no plain tensor"),
        "stretched": (
            put("encoder", norm, torch.ones(1).expand(128)),
            f"encoder: `{norm}` is no plain tensor",
        ),
        "sparse": (
            put("encoder", norm, torch.ones(128).to_sparse()),
            f"encoder: `{norm}` is no plain tensor",
        ),
        "prompt": (
            lambda c: c.update(prompt_embeds=torch.ones(1, 77, 9)),
            "`prompt_embeds` has shape (1, 77, 9), expected (1, L, 128)",
        ),
        "pooled prompt": (
            lambda c: c.update(pooled_prompt_embeds=[1]),
            "`pooled_prompt_embeds` has shape (), expected (1, 128)",
        ),
        "optimizer": (
            lambda c: c.update(optimizer={"state": {}}),
            "`optimizer` is no state of an optimizer",
        ),
        "both branches": (
            lambda c: c.update(cond_adapter=content(COARSE)["cond_adapter"]),
            "caption_forecaster does not go with",
        ),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", edits())
def test_the_first_difference_is_named(tmp_path: Path, case: str) -> None:
    edit, says = edits()[case]
    made = content(optimizer=False)
    edit(made)
    path = saved(made, tmp_path / "a.pth.tar")
    with pytest.raises(PublishedError) as error:
        read_published(path)
    assert str(error.value).startswith(f"{path} is not a whole published checkpoint: "), error.value
    assert says in str(error.value)
    assert isinstance(error.value, CheckpointError)


@pytest.fixture(scope="module")
def blob(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return saved(
        content(optimizer=False), tmp_path_factory.mktemp("good") / "a.pth.tar"
    ).read_bytes()


def test_a_cut_or_damaged_file_is_refused(tmp_path: Path, blob: bytes) -> None:
    path = tmp_path / "a.pth.tar"
    for length in (4, 100, len(blob) // 2, len(blob) - 30, len(blob) - 1):
        path.write_bytes(blob[:length])
        with pytest.raises(
            PublishedError, match="truncated: it has the beginning of an archive and no end"
        ):
            read_published(path)
    bad = bytearray(blob)
    bad[len(blob) // 2] ^= 1  # one bit of a weight
    path.write_bytes(bad)
    with pytest.raises(
        PublishedError, match=r"record `a\.pth/data/\d+` is damaged \(wrong checksum\)"
    ):
        read_published(path)
    path.write_bytes(blob)
    assert read_published(path).dims == DIMS


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "a.pth.tar"
    with pytest.raises(FileNotFoundError):
        read_published(path)
    for data in (b"", b"Not a checkpoint", b"\x80\x02}q\x00."):
        path.write_bytes(data)
        with pytest.raises(PublishedError, match="it is no zip archive"):
            read_published(path)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(PublishedError, match="no zip archive"):
        read_published(path)
    torch.save(content(optimizer=False), path, _use_new_zipfile_serialization=False)
    with pytest.raises(PublishedError, match="no zip archive"):
        read_published(path)
    for name in ("a.txt", "a/data.pkl"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "hello")
        with pytest.raises(PublishedError, match="torch cannot read it as weights"):
            read_published(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", "0" * 10**6)
    with pytest.raises(PublishedError, match=r"record `a/data\.pkl` is compressed"):
        read_published(path)
    with pytest.raises(PublishedError, match="holds a list, not a dictionary"):
        read_published(saved([1, 2], path))
    with pytest.raises(PublishedError, match="unknown key 'state_dict'"):
        read_published(saved({"state_dict": {}}, path))


class Evil:
    """A pickle of it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def test_code_is_named_and_never_run(tmp_path: Path) -> None:
    for place in ("config", "encoder"):
        made = content(optimizer=False)
        made[place] = dict(made[place]) | {"blocks.0.norm1.weight": Evil(f"touch {tmp_path}/ran")}
        path = saved(made, tmp_path / "evil.pth.tar")
        with pytest.raises(
            PublishedError, match=r"it holds `posix\.system`, which is code and not weights"
        ):
            read_published(path)
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pth.tar"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pth.tar"
    path.write_bytes(b"old")

    def full(fd: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_published(content(optimizer=False), path)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.pth.tar"]
