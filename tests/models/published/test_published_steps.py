"""Golden m: three optimiser steps of the whole published objective, with toy stand-ins for SD 3 and
its VAE.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from satjepa.contracts import CAPTION_KINDS
from satjepa.models.published.adapter import CaptionAdapter
from satjepa.models.published.model import PublishedSatJepa
from satjepa.published.names import to_ours, to_published
from satjepa.training.published_optim import Schedule, clip_each_group, parameter_groups, set_rates

SECTIONS = {"encoder": "encoder", "predictor": "predictor", "target_encoder": "target_encoder",
            "proj_head": "proj_head", "adapter": "cond_adapter",
            "forecaster": "caption_forecaster"}  # fmt: skip


class Toy(nn.Module):
    """The linear SD 3 and VAE of the vectors: encode = 8x8 means, channel matrix; v = A z + U
    mean(e) + P q + tau w.
    """

    def __init__(self, g, config, scale, shift):
        super().__init__()
        for name in "APUw":
            self.register_parameter(name, nn.Parameter(g[f"init.unet.{name}"].clone()))
        self.E = g["vae.E"]
        self.D = g["vae.D"]
        self.scale = scale
        self.shift = shift
        self.joint_dim = config["cross_attn"]
        self.pooled_dim = config["pooled"]

    @torch.no_grad()
    def encode(self, rgb):
        z = torch.einsum("kc,bchw->bkhw", self.E, nn.functional.avg_pool2d(2 * rgb - 1, 8))
        return (z - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, z):
        rgb = torch.einsum("ck,bkhw->bchw", self.D, z / self.scale + self.shift)
        return ((rgb.repeat_interleave(8, 2).repeat_interleave(8, 3) + 1) / 2).clamp(0, 1)

    def forward(self, z, sigma, context, pooled):
        rest = context.mean(1) @ self.U.T + pooled @ self.P.T + sigma[:, None] * self.w  # (B,C)
        return torch.einsum("kc,bchw->bkhw", self.A, z) + rest[:, :, None, None]


def space(**named):
    return SimpleNamespace(
        **{k: space(**v) if isinstance(v, dict) else v for k, v in named.items()}
    )


def loaded(module, state):
    """Strict: the names are the published ones; only fixed tables are not part of a state."""
    state = {
        name.split(".", 1)[1]: value
        for name, value in state.items()
        if not name.endswith("positions")
    }
    module.load_state_dict(state)


def build(g, c, scale, shift, below):
    w = c["hybrid_weights"]
    loss = {"l1": w["l1_weight"], "cosine": w["cosine_weight"],
    "contrastive": w["contrastive_weight"],
            "spatial": w["spatial_var_weight"], "feature": w["feature_reg_weight"],
            "temperature": 0.1, "ijepa": 1.0, "sd": c["sd_loss_weight"],
            "caption": c["caption_forecast_weight"]}  # fmt: skip
    params = space(
        data={"patch": c["img"]}, loss=loss,
        model={"variant": "published", "use_jepa": True, "use_captions": True, "coarse_rgb": 0,
               "encoder": {"patch": c["patch"], "dim": c["dim"], "depth": c["depth"],
               "heads": c["heads"]}, "predictor": {"dim": c["pred_dim"], "depth": c["pred_depth"],
               "heads": c["heads"]}, "adapter": {"dim": c["adapter_hidden"], "layers": 1,
               "heads": c["temporal_heads"]}, "forecaster": {"dim": c["forecaster_hidden"],
               "layers": c["forecaster_layers"],
                              "heads": c["forecaster_heads"]}},
    )  # fmt: skip
    empty = {
        "hidden": torch.zeros(c["tokens_L"], c["text"]),
        "pooled": torch.zeros(c["text_pooled"]),
    }
    model = PublishedSatJepa(params, Toy(g, c, scale, shift), empty)
    model.projection = nn.Linear(c["dim"], c["emb_channels"])
    model.adapter = CaptionAdapter(
        c["dim"], c["text"], c["text_pooled"], c["cross_attn"], c["pooled"], c["adapter_hidden"],
        temporal_heads=c["temporal_heads"], history=c["temporal_max_history"],
    )  # fmt: skip
    for name, section in SECTIONS.items():
        module = getattr(model, "projection" if name == "proj_head" else name)
        loaded(module, to_ours(section, below(g, f"init.{name}.")))
    return model.eval()


def batch_of(g, prefix):
    def read(name):
        return g[f"{prefix}.in.{name}"]

    hidden, pooled = (
        torch.stack([read(f"{name}_{what}") for name in CAPTION_KINDS], 1)
        for what in ("hidden", "pooled")
    )
    later = torch.zeros_like(hidden)
    later[:, 2] = read("semantic_tp1_hidden")
    ok = torch.ones_like(read("rgb_tp1")[:, :1], dtype=torch.bool)
    batch = {"rgb_t": read("rgb_t"), "rgb_tp1": read("rgb_tp1"), "emb_tp1": read("embeddings_tp1")}
    batch |= {"emb_valid": ok, "valid_tp1": ok, "text_tp1": {"hidden": later}}
    batch |= {"text_t": {"hidden": hidden, "pooled": pooled}}
    return batch, read("noise"), read("t"), (read("mask_ctx")[None], read("mask_tgt")[None])


def schedule_of(c):
    names = (
        "epochs",
        "warmup_epochs",
        "start_lr",
        "lr",
        "final_lr",
        "weight_decay",
        "final_weight_decay",
    )
    last = {"momentum": tuple(c["ema"]), "scale": c.get("ipe_scale", 1.0)}
    return Schedule(c["iterations_per_epoch"], **{name: c[name] for name in names}, **last)


def test_schedule_is_the_published_one(golden):
    g, meta = golden("l_schedules")
    c = meta["config"]
    schedule = schedule_of(c)
    rates = [schedule.at(step) for step in range(c["steps"])]
    for name, values in zip(
        ("lr", "weight_decay", "ema_momentum"), zip(*rates, strict=True), strict=True
    ):
        assert values == pytest.approx(g[name].tolist(), rel=1e-12)


@pytest.mark.parametrize(
    "arm", [{}, {"use_captions": False, "coarse_rgb": 8}], ids=["captions", "coarse"]
)
def test_every_parameter_that_trains_is_in_one_group(build_published, arm):
    model = build_published(**arm)
    groups = parameter_groups(model)
    names = {id(p): name for name, p in model.named_parameters()}
    grouped = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(model.trainable_names())
    spared = [names[id(p)] for group in groups if not group["decays"] for p in group["params"]]
    assert {"encoder.norm.weight", "predictor.proj.bias"} <= set(
        spared
    ) and "predictor.mask_token" not in spared
    assert {name.split(".")[0] for name in spared} == {"encoder", "predictor"}
    assert clip_each_group(torch.optim.AdamW(groups), 1.0) == [0.0] * 7


def test_three_steps_are_the_published_ones(golden, below, close):
    g, meta = golden("m_joint_training_steps")
    c = meta["config"]
    toy = golden("i_flow_matching_and_sampling")[1]["config"]
    model = build(g, c, toy["scaling_factor"], toy["shift_factor"], below)
    schedule = schedule_of(c)
    optimizer = torch.optim.AdamW(parameter_groups(model))
    idle = {name: p.clone() for name, p in model.adapter.temporal_attn.named_parameters()}
    for step in range(c["steps"]):
        rates = schedule.at(step)
        out = below(g, f"step{step}.out.")
        batch, noise, t, masks = batch_of(g, f"step{step}")
        tokens = model.predictor(model.encoder(batch["rgb_t"], masks[0]), *masks)
        close(nn.functional.layer_norm(tokens, tokens.shape[-1:]), out["z_norm"])
        loss, parts = model.loss(batch, noise, t, masks)
        optimizer.zero_grad()
        loss.backward()
        set_rates(optimizer, rates)
        norms = clip_each_group(optimizer, 1.0)
        optimizer.step()
        model.update_target(rates.momentum)
        theirs = {
            "ijepa.contrastive": "ijepa.contr",
            "ijepa.feature": "ijepa.feat_reg",
            "loss": "total",
        }
        theirs |= {f"ijepa.{name}": f"ijepa.{name}" for name in ("l1", "cosine", "spatial")}
        theirs |= {"flow.mse": "velocity_mse", "flow.ssim": "ssim_loss"}
        for name, their in theirs.items():
            close(parts[name], out[their].to(parts[name].dtype))
        caption = sum(
            scale * parts[f"caption.{n}"]
            for n, scale in (("mse", 1), ("cosine", 0.5), ("contrastive", 0.1))
        )
        close(caption, out["loss_caption"])
        wanted = out["grad_norm_per_group_before_clip"].tolist()
        assert [float(norm) for norm in norms] == pytest.approx(wanted, rel=1e-5)
        assert rates == pytest.approx(
            [out[name].item() for name in ("lr", "weight_decay", "ema_momentum")], rel=1e-9
        )
    state = model.state_dict()
    for name, section in SECTIONS.items():
        expected = below(g, f"final.{name}.")
        got = to_published(section, state)
        assert got.keys() == expected.keys()
        for key, value in expected.items():
            close(got[key], value, 3e-4)
    for name in "APUw":
        close(getattr(model.backbone, name).data, g[f"final.unet.{name}"], 3e-4)
    assert all(
        torch.equal(idle[name], p) for name, p in model.adapter.temporal_attn.named_parameters()
    )
