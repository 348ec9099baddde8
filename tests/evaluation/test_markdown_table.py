"""satjepa.evaluation.table: the rows of several seeds as one, and the Markdown tables of notebooks
and README.
"""

import pandas as pd
import pytest

from satjepa.evaluation.table import combine_seeds, markdown_table, write_table


def row(seed: int, **other) -> dict:
    """A small row."""
    base = {"model": "ours", "preset": "strong", "n": 5, "samples": 1}
    return base | {"psnr": 20.0 + seed, "l1": 0.1, "fid64": None, "lpips": 0.25} | other


def test_seeds_are_combined() -> None:
    both = combine_seeds([row(0), row(3)])
    assert both["seeds"] == 2 and both["model"] == "ours" and both["n"] == 5
    assert both["psnr"] == 21.5 and both["psnr_std"] == pytest.approx(3 / 2**0.5)
    assert both["fid64"] is None and both["fid64_std"] is None
    single = combine_seeds([row(0)])
    assert (
        single["psnr"] == 20.0
        and single["seeds"] == 1
        and not any(key.endswith("_std") for key in single)
    )
    for other in (row(0, n=6), row(0, model="theirs"), row(0, lpips_rand=0.1)):
        with pytest.raises(ValueError, match="different things"):
            combine_seeds([row(0), other])


def test_seeds_counts_the_tables() -> None:
    """A table of one seed has the column already; it is counted anew and has no deviation."""
    combined = combine_seeds([row(seed, seeds=1) for seed in (0, 1, 5)])
    assert combined["seeds"] == 3 and combined["psnr"] == 22.0 and "seeds_std" not in combined


def test_what_nothing_was_trained_in_has_one_seed_and_no_deviation() -> None:
    """Machines differ in the last digits, also where skill is 0; a metric that one of them lacks
    says nothing.
    """
    here = row(0, skill=0.0, fd_vgg=400.0)
    there = here | {"lpips": 0.25 * (1 + 1e-6), "skill": 1e-8, "fd_vgg": 400.002}
    combined = combine_seeds([here, there])
    assert combined["seeds"] == 1 and not any(key.endswith("_std") for key in combined)
    assert combined["psnr"] == 20.0 and combined["lpips"] == pytest.approx(0.25)
    lacking = combine_seeds([here, there | {"lpips": None}])
    assert lacking["seeds"] == 1 and lacking["lpips"] is None
    for trained in ({"lpips": 0.25 * (1 + 1e-3)}, {"skill": 1e-4}):
        combined = combine_seeds([here, there | trained])
        assert combined["seeds"] == 2 and combined["psnr_std"] == 0


def test_table_in_csv_and_markdown(tmp_path) -> None:
    path = tmp_path / "reports" / "table.csv"
    lines = [
        combine_seeds([row(0), row(3)]),
        row(1, model="Default"),
        row(1, preset="gentle", psnr=31.0),
    ]
    write_table(lines, path, {"fid_missing": "no network", "psnr": "mean over patches"})
    table = pd.read_csv(path)
    assert table["psnr"].tolist() == [21.5, 21.0, 31.0] and table["fid64"].isna().all()
    text = markdown_table(path, preset="strong").splitlines()
    assert text[0] == "| model | PSNR ↑ | L1 ↓ | LPIPS (VGG) ↓ | FID, 64 features ↓ |"
    assert text[1] == "| --- | --- | --- | --- | --- |"
    assert text[2] == "| ours | 21.50 ± 2.12 | 0.1000 ± 0.0000 | 0.250 ± 0.000 | – |"
    assert text[3] == "| Default | 21.00 | 0.1000 | 0.250 | – |"
    assert text[4] == "", "the other preset has its own table"
    notes = "\n".join(text[5:])
    assert (
        "n = 5 patches" in notes
        and "not measured, no network" in notes
        and "* PSNR: mean over patches." in notes
    )
    assert "standard deviation" in notes and "andom trunk" not in notes
    write_table([row(1, lpips_rand=0.3)], path)
    assert "not comparable" in markdown_table(path) and "standard deviation" not in markdown_table(
        path
    )


def test_the_best_is_bold(tmp_path) -> None:
    """As it is printed, so there may be two; rows beside the contest may be better; no end of
    spread is best.
    """
    lines = [
        row(2, model="a", l1=0.2, spread_skill=0.5), row(2, model="b", l1=0.3, psnr=22.001,
        spread_skill=0.9), row(9, model="Oracle, mean", l1=0.0, spread_skill=1.0), row(0,
        model="Ablation: full", l1=0.2),
    ]  # fmt: skip
    write_table(lines, path := tmp_path / "table.csv")
    shown = ("l1", "psnr", "fid64", "spread_skill")
    assert markdown_table(
        path, columns=shown, title="strong change", without=("Abl",), bold=True, notes=False
    ) == (
        "| strong change | L1 ↓ | PSNR ↑ | FID, 64 features ↓ | spread / skill (ideal 1) |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| a | **0.2000** | **22.00** | – | 0.50 |\n"
        "| b | 0.3000 | **22.00** | – | 0.90 |\n"
        "| Oracle, mean | 0.0000 | 29.00 | – | 1.00 |\n"
    )
    ablation = markdown_table(path, columns=("l1",), bold=True, notes=False).splitlines()[-1]
    assert ablation == "| Ablation: full | 0.2000 |"


def test_costs_are_those_of_the_seeds(tmp_path) -> None:
    """The least over seeds; an ablation is found by the name of its run; without such files there
    are no columns.
    """
    names = ("ours", "Default", "Ablation: no JEPA, 8 samples")
    write_table([row(0, model=name) for name in names], path := tmp_path / "table.csv")
    plain = markdown_table(path, columns=("psnr",), notes=False)
    assert markdown_table(path, columns=("psnr",), notes=False, costs=True) == plain
    head = "run,model,trained_parameters,training_minutes,seconds_per_patch\n"
    for seed, minutes in ((0, 10), (1, 20)):
        (tmp_path / f"seed-{seed}").mkdir()
        ours = f"satjepa-{seed},ours,2500000,{minutes},0.5\n"
        arm = f'no_jepa-{seed},"Ablation: no JEPA, 8 samples",0,0,0.25\n'
        (tmp_path / f"seed-{seed}/costs.csv").write_text(head + ours + arm)
    assert markdown_table(path, columns=("psnr",), notes=False, costs=True).splitlines() == [
        "| model | PSNR ↑ | trained parameters | training, core-minutes | forecast, ms a patch |",
        "| --- | --- | --- | --- | --- |",
        "| ours | 20.00 | 2.50 M | 10 | 500 |",
        "| Default | 20.00 | – | – | – |",
        "| Ablation: no JEPA, 8 samples | 20.00 | – | – | 250 |",
    ]
