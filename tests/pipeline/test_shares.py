"""Two processes (gloo, on the CPU), as `accelerate launch` starts them, caption, embed and score
what one does, to the byte.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from satjepa.captions import writing
from satjepa.captions.outcomes import CaptionsFailed, Failed, Written
from satjepa.captions.store import TextStore
from satjepa.captions.table import lookup
from satjepa.captions.writing import caption_patches
from satjepa.contracts import Captions, PatchKey
from satjepa.data.share import Share, interleave
from satjepa.evaluation.evaluate import evaluate_all

KEYS = [PatchKey("strong", name, year, 0, 0) for name in "BCA" for year in (2018, 2017, 2019)]
WORKER = """
import sys
sys.path[:0] = [{tests!r}]
import torch
import test_shares
torch.set_num_threads(1)
test_shares.work(test_shares.Path(sys.argv[1]))
torch.distributed.destroy_process_group()
"""


class Encoders:
    """A text is embedded as numbers of its own."""

    def fingerprint(self) -> str:
        return "encoders"

    def encode(self, texts: list[str], max_length: int, batch: int) -> list[tuple]:
        return [(torch.full((len(t), 4), float(len(t))), torch.ones(3)) for t in texts]


class Noise:
    """A forecast that depends on the place alone."""

    def forecast(self, batch: dict, samples: int = 1, seed: int = 0) -> torch.Tensor:
        forecasts = []
        for meta in batch["meta"]:
            generator = torch.Generator().manual_seed(meta["x"])
            forecasts.append(torch.rand(samples, 3, 16, 16, generator=generator))
        return torch.stack(forecasts, 1)


def images() -> list[tuple]:
    return [(key, np.full((3, 2, 2), i, np.float32), None) for i, key in enumerate(KEYS)]


def by_number(rgb: np.ndarray, valid: None) -> Captions:
    n = int(rgb[0, 0, 0])
    return Captions(*("abc"[k] * (3 * n + k + 1) for k in range(3)))


def by_batch(pictures: list[tuple]) -> list[Written]:
    """Captions that say what they were batched with, as a model's in bfloat16 may."""
    numbers = " ".join(str(int(rgb[0, 0, 0])) for rgb, _ in pictures)
    return [Written(Captions(f"{numbers}", "g", "s"), {"prompts": "p"}) for _ in pictures]


def by_batch_but_one(pictures: list[tuple]) -> list[Written | Failed]:
    """One image fails, whoever has it."""
    made = by_batch(pictures)
    failed = Failed("RuntimeError: image 4")
    return [
        failed if rgb[0, 0, 0] == 4 else one for one, (rgb, _) in zip(made, pictures, strict=True)
    ]


def batch_of(x: int) -> dict:
    generator = torch.Generator().manual_seed(100 + x)
    rgb = torch.rand(2, 2, 3, 16, 16, generator=generator)
    valid = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    place = {"preset": "strong", "region": "A", "year": 2018, "y": 0}
    return {
        "rgb_t": rgb[0], "rgb_tp1": rgb[1], "valid_t": valid, "valid_tp1": valid,
        "meta": [place | {"x": x}, place | {"x": x + 50}],
    }  # fmt: skip


def work(folder: Path) -> None:
    """All that is shared, in this process's part."""
    import satjepa.captions.store as store

    store.SHARD = 4
    share = Share.mine()
    table = folder / "captions.parquet"
    added = caption_patches(images(), by_number, table, "n", 1, progress=False, share=share)
    assert added == len(KEYS)
    model = folder / "model" / "captions.parquet"
    more = {"batch": 2, "made_by": {"prompts": "p"}, "progress": False, "share": share}
    assert caption_patches(images(), by_batch, model, "m", 1, **more) == len(KEYS)
    broken = folder / "broken" / "captions.parquet"
    with pytest.raises(CaptionsFailed, match=r"captions: 1, .*: image 4\)\. The 8 captions"):
        caption_patches(images(), by_batch_but_one, broken, "m", 1, **more)
    texts = {text for three in lookup(table, "n", 1).values() for text in three}
    texts = TextStore.write(
        folder / "text", texts, Encoders(), 99, progress=False, share=share
    ).numbers
    for count in (5, 1):  # with one batch the second process has none
        rows = evaluate_all(
            {"noise": Noise()},
            [batch_of(x) for x in share.of(range(count))],
            samples={"noise": 3},
            share=share,
        )
        shown = [
            {name: value for name, value in row.row.items() if name != "seconds_per_patch"}
            | {"ranks": row.ranks, "patches": row.patches.to_csv()}
            for row in rows
        ]
        if share.rank == 0:
            (folder / f"scores-{count}.json").write_text(json.dumps([shown, list(texts)]))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    work(tmp_path / "one")
    one = files(tmp_path / "one")
    assert len(one) == 3 + 7 + 2  # tables, 28 texts in files of 4, scores
    (tmp_path / "two").mkdir()
    (tmp_path / "worker.py").write_text(WORKER.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "2", tmp_path / "worker.py", tmp_path / "two"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": path},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    two = files(tmp_path / "two")
    assert two.keys() == one.keys()
    for name, content in one.items():
        assert two[name] == content, name


class Alone(Share):
    """One of several processes, which waits for none."""

    def wait(self) -> None:
        pass

    def gather(self, mine: list) -> list:
        return mine


def test_what_killed_processes_wrote_is_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that were killed before their journals were put together, then one that goes on
    alone.
    """
    table = tmp_path / "captions.parquet"
    monkeypatch.setattr(writing, "_put_together", lambda path: None)
    for rank in (0, 1):
        share = Alone(rank, 2)
        caption_patches(images()[:6], by_number, table, "n", 1, progress=False, share=share)
    monkeypatch.undo()
    assert not table.exists()
    fresh = []

    def spy(rgb: np.ndarray, valid: None) -> Captions:
        fresh.append(rgb)
        return by_number(rgb, valid)

    assert caption_patches(images(), spy, table, "n", 1, progress=False) == len(fresh) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["captions.parquet"]
    assert list(lookup(table, "n", 1)) == sorted(KEYS)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_are_dealt_and_put_together(world: int) -> None:
    items = list(range(8))
    dealt = [list(Share(rank, world).of(items)) for rank in range(world)]
    assert interleave(dealt) == items
    assert Share().gather(items) == items
