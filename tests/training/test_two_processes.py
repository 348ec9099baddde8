"""Training in two processes (gloo, on the CPU), as `accelerate launch` starts them."""

import os
import subprocess
import sys
from pathlib import Path

from reach import REPO

from satjepa.training import checkpoint

WORKER = """
import sys
import torch
from pathlib import Path
sys.path[:0] = [{repo!r}, {tests!r}]
from tiny_run import SAMPLES, build, make_backbone, sample, tiny
from satjepa.models.published.model import PublishedSatJepa
from satjepa.training.loop import train


def trained(variant: str, run: Path) -> torch.Tensor:
    published = {{}}
    if variant == "published":
        published = {{"model__variant": "published", "train__muon_lr": None}}
    lesson = {{"windows": 4, "steps": 2, "batch": 2}}
    params = tiny(train__steps=2, train__lesson=lesson, **published)
    backbone = make_backbone()
    if published:
        empty = {{"hidden": torch.randn(5, 128), "pooled": torch.randn(128)}}
        empty["mask"] = torch.arange(5) < 1
        model = PublishedSatJepa(params, backbone, empty)
    else:
        model = build(backbone, params)
    train(model, [sample(i) for i in range(SAMPLES)], params, run, progress=False, split="s")
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


for variant in ("satjepa", "published"):
    weights = trained(variant, Path(sys.argv[1]) / variant)
    both = [torch.empty_like(weights) for _ in range(2)]
    torch.distributed.all_gather(both, weights)
    assert torch.equal(*both), f"{{variant}}: the processes have drifted apart"
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    """Of either variant; the published one has weights that never get a gradient.

    A reducer of gradients must know that there are such.
    """
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER.format(repo=str(REPO), tests=str(REPO / "tests")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, worker, tmp_path],
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for variant in ("satjepa", "published"):
        saved = checkpoint.load(tmp_path / variant / "model")
        assert saved.state["step"] == 2
        assert any(name.startswith("average.") for name in saved.tensors)
