"""A model's captions on their way into the table: batches, failures, provenance, kills."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from satjepa.captions import outcomes
from satjepa.captions.outcomes import CaptionsFailed, Failed, Outcome, Picture, Written, attempt
from satjepa.captions.table import COLUMNS, PROVENANCE, lookup, read_table
from satjepa.captions.writing import caption_patches
from satjepa.contracts import Captions, PatchKey

ABOUT = {
    "revision": "r", "prompts": "p", "library": "l 1", "calls": "together", "date": "2026-01-31",
}  # fmt: skip


def images(count: int) -> list[tuple]:
    keys = [PatchKey("strong", f"Region {n % 3}", 2017 + n, 0, 0) for n in range(count)]
    return [(key, np.full((3, 2, 2), n, np.float32), None) for n, key in enumerate(keys)]


class Model:
    """A captioner of batches that notes the sizes of its batches, and fails where it is told to."""

    def __init__(self, about: dict[str, str] = ABOUT, bad: Sequence[int] = ()) -> None:
        self.about = about
        self.bad = set(bad)
        self.batches: list[list[int]] = []

    def __call__(self, pictures: Sequence[Picture]) -> list[Outcome]:
        numbers = [int(rgb[0, 0, 0]) for rgb, _ in pictures]
        self.batches.append(numbers)
        if self.bad & set(numbers):
            raise RuntimeError(f"no memory\nfor {numbers}")
        texts = [Captions(f"i {n}", f"g {n}", f"s {n}") for n in numbers]
        return [Written(three, self.about) for three in texts]


def write(path: Path, model: Model, count: int = 10, **more: object) -> int:
    settings = {"batch": 4, "progress": False, "made_by": {"prompts": "p"}} | more
    return caption_patches(
        images(count), lambda pictures: attempt(model, pictures), path, "m", 1, **settings
    )


def test_images_are_captioned_in_batches(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    model = Model()
    assert write(path, model) == 10
    assert [len(numbers) for numbers in model.batches] == [4, 4, 2]
    rows = lookup(path, "m", 1)
    assert rows[images(10)[7][0]] == Captions("i 7", "g 7", "s 7")
    assert [file.name for file in tmp_path.iterdir()] == ["captions.parquet"]


def test_every_row_says_how_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    write(path, Model())
    table = pd.read_parquet(path)
    assert list(table.columns) == list(COLUMNS)
    assert table[list(PROVENANCE)].drop_duplicates().to_dict("records") == [ABOUT]
    assert set(table.captioner) == {"m"}


def test_a_table_by_rule_has_no_columns_for_it(tmp_path: Path) -> None:
    """Its bytes are those of earlier versions, and of every day."""
    path = tmp_path / "captions.parquet"
    three = Captions("i", "g", "s")
    caption_patches(images(3), lambda rgb, valid: three, path, "rules", 1, progress=False)
    assert list(pd.read_parquet(path).columns) == [c for c in COLUMNS if c not in PROVENANCE]
    table = read_table(path)
    assert {name: str(kind) for name, kind in table.dtypes.items()} == COLUMNS
    assert (table[list(PROVENANCE)] == "").all(axis=None)


def test_rows_of_other_prompts_or_weights_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    write(path, Model(), 6)
    assert write(path, Model(), 6) == 0
    other = Model(ABOUT | {"prompts": "q"})
    assert write(path, other, 6, made_by={"prompts": "q"}) == 6
    assert set(read_table(path).prompts) == {"q"} and len(read_table(path)) == 6
    newer = {"prompts": "q", "revision": "s"}
    assert write(path, Model(ABOUT | newer), 6, made_by=newer) == 6
    assert set(read_table(path).revision) == {"s"} and len(read_table(path)) == 6


def test_a_row_without_provenance_is_a_row_of_other_prompts(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    three = Captions("i", "g", "s")
    caption_patches(images(4), lambda rgb, valid: three, path, "m", 1, progress=False)
    assert len(lookup(path, "m", 1)) == 4
    assert write(path, Model(), 4) == 4
    assert set(read_table(path).prompts) == {"p"}


def test_a_failing_image_is_tried_again_by_itself_and_reported(tmp_path: Path) -> None:
    """And costs the others of its batch nothing; the next run tries it again."""
    path = tmp_path / "captions.parquet"
    model = Model(bad=[5])
    message = (
        r"^images without captions: 1, .*strong/Region 2/2022/0/0: RuntimeError: no memory for "
        r"\[5\]\)\. The 9 captions added are kept"
    )
    with pytest.raises(CaptionsFailed, match=message) as error:
        write(path, model)
    assert model.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [4], [5], [5], [6], [7], [8, 9]]
    assert [key for key, _ in error.value.failures] == [images(10)[5][0]]
    assert len(lookup(path, "m", 1)) == 9
    model = Model()
    assert write(path, model) == 1 and model.batches == [[5]]
    whole = tmp_path / "whole.parquet"
    write(whole, Model())
    assert path.read_bytes() == whole.read_bytes()


def test_an_image_that_nothing_is_said_of_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"

    def silent(pictures: Sequence[Picture]) -> list[Outcome]:
        return [Failed("nothing was answered for semantic") for _ in pictures]

    with pytest.raises(CaptionsFailed, match=r"captions: 10, .*\d: nothing was.* and 7 more\)"):
        write(path, silent)
    assert not path.exists()


def test_a_model_that_always_fails_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satjepa.captions.writing.GIVE_UP", 8)
    model = Model(bad=range(100))
    with pytest.raises(CaptionsFailed, match=r"captions: 8, .*Given up after \d+ in a row"):
        write(tmp_path / "captions.parquet", model, 100)
    assert max(max(numbers) for numbers in model.batches) == 7


def test_an_interruption_is_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"

    def stopped(pictures: Sequence[Picture]) -> list[Outcome]:
        if pictures[0][0][0, 0, 0] == 4:
            raise KeyboardInterrupt
        return Model()(pictures)

    with pytest.raises(KeyboardInterrupt):
        write(path, stopped)
    assert len(lookup(path, "m", 1)) == 4


def test_a_picture_is_tried_as_often_as_it_says() -> None:
    model = Model(bad=[1])
    found = attempt(model, [(np.full((3, 2, 2), 1.0), None)])
    assert found == [Failed("RuntimeError: no memory for [1]")]
    assert len(model.batches) == 1 + outcomes.TRIES


def test_an_image_that_is_answered_with_nothing_is_tried_alone() -> None:
    """The others of its batch are not asked again."""
    sizes = []

    def silent_at_first(pictures: list[Picture]) -> list[Outcome]:
        sizes.append(len(pictures))
        written = Model()(pictures)
        first = len(sizes) == 1
        return [written[0], Failed("nothing was answered"), written[2]] if first else written

    three = [(np.full((3, 2, 2), float(value)), None) for value in range(3)]
    outcomes_of_three = attempt(silent_at_first, three)
    assert all(isinstance(outcome, Written) for outcome in outcomes_of_three)
    assert sizes == [3, 1]


def test_time_left_is_that_of_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the table already is passed over without a step of the bar."""
    bars = []

    class Bar:
        def __init__(self, **settings: object) -> None:
            self.total = settings["total"]
            self.steps = 0
            bars.append(self)

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, steps: int) -> None:
            self.steps += steps

    monkeypatch.setattr("tqdm.tqdm", Bar)
    path = tmp_path / "captions.parquet"
    write(path, Model(), 6)
    write(path, Model(), 10)
    assert [(bar.total, bar.steps) for bar in bars] == [(6, 6), (4, 4)]


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    """As a crash of the machine may leave it: its batch is made again."""
    path = tmp_path / "captions.parquet"
    write(path, Model(), 4)
    row = read_table(path).iloc[0].to_dict()
    fresh = json.dumps([row | {"region": "Other"}])
    half = fresh[: len(fresh) // 2]
    (tmp_path / "captions.0.jsonl").write_text(fresh + "\n" + half)
    last = fresh.replace("Other", "Last")
    (tmp_path / "captions.1.jsonl").write_text(half + last + "\n" + last + "\n")
    assert write(path, Model(), 4) == 0
    assert len(read_table(path)) == 6
    assert [file.name for file in tmp_path.iterdir()] == ["captions.parquet"]


KILLS = 20
DRIVER = """
import os, random, signal, sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}]
import numpy as np
import pandas
import pyarrow.parquet
from test_writing import Model, write

folder = Path(sys.argv[1])
log = open(folder / "asked", "ab", buffering=0)

class Slow(Model):
    def __call__(self, pictures):
        numbers = [int(rgb[0, 0, 0]) for rgb, _ in pictures]
        log.write((" ".join(map(str, numbers)) + "\\n").encode())
        time.sleep(0.004)
        return super().__call__(pictures)

def child(every):
    process = os.fork()
    if not process:
        status = 1
        try:
            write(folder / "captions.parquet", Slow(), {count}, every=every)
            status = 0
        finally:
            os._exit(status)
    return process

def status_of(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
"""
KILL = """
chance = random.Random(0)
for _ in range({kills}):
    process = child(0.02)
    time.sleep(chance.uniform(0.0, 0.12))
    os.kill(process, signal.SIGKILL)
    print(int(status_of(process) == -9), end="")
sys.exit(status_of(child(0.02)))
"""
TOGETHER = """
processes = [child(0.0), child(0.003), child(0.01)]
sys.exit(max(status_of(process) for process in processes))
"""


def drive(folder: Path, script: str, **settings: int) -> str:
    """Run a script that forks captioners and ends them; what it printed."""
    script = (DRIVER + script).format(tests=str(Path(__file__).parent), **settings)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, folder],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_kills_at_any_moment_cost_a_batch_each_and_double_nothing(tmp_path: Path) -> None:
    """Killed 20 times: between batches, within one, while the table is written."""
    count = 400
    killed = drive(tmp_path, KILL, kills=KILLS, count=count).count("1")
    assert killed >= 10, "it was done before it could be killed: give it more to do"
    path = tmp_path / "captions.parquet"
    whole = tmp_path / "whole" / "captions.parquet"
    write(whole, Model(), count)
    assert path.read_bytes() == whole.read_bytes()
    asked = (tmp_path / "asked").read_text().split()
    assert set(asked) == {str(n) for n in range(count)}
    assert len(asked) <= count + 4 * killed
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {"captions.parquet", "asked", "whole"}


def test_captioners_that_were_left_alive_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """Three that know nothing of each other, each putting the journals of all into the table."""
    drive(tmp_path, TOGETHER, count=200)
    whole = tmp_path / "whole" / "captions.parquet"
    write(whole, Model(), 200)
    assert (tmp_path / "captions.parquet").read_bytes() == whole.read_bytes()
