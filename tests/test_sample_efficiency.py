"""The benchmark of sample efficiency: which regions are left, and what its figure shows."""

from types import SimpleNamespace

import pandas as pd
import pytest
from reach import script

from satjepa.evaluation.table import write_table


@pytest.fixture(scope="module")
def bench():
    return script("benchmarks/sample_efficiency.py")


@pytest.mark.parametrize(("share", "left"), [(0.1, "A"), (0.5, "AC"), (1.0, "ABCD")])
def test_a_share_of_the_regions_is_left(bench, share: float, left: str) -> None:
    places = [SimpleNamespace(region=name) for name in "DBCA"]
    data = SimpleNamespace(places=places, samples=[(i % 4, i, 0, 0) for i in range(12)])
    assert bench.keep_regions(data, share) == len(left)
    assert {places[number].region for number, *_ in data.samples} == set(left)
    assert len(data.samples) == 3 * len(left)


def test_the_figure_has_a_line_a_system_and_a_tick_a_share(bench) -> None:
    rows = [
        {"system": s, "regions": n, "psnr": n, "lpips": 1 / n}
        for n in (24, 2)
        for s in ("U-Net", "ours")
    ]
    fig = bench.draw(pd.DataFrame(rows))
    psnr, lpips = fig.axes  # no GSSIM in the table, no panel
    assert [line.get_label() for line in psnr.lines] == ["U-Net", "ours"]
    assert list(psnr.lines[0].get_xdata()) == [2, 24] and list(lpips.lines[1].get_ydata()) == [
        0.5,
        1 / 24,
    ]
    assert [tick.get_text() for tick in psnr.get_xticklabels()] == ["2", "24"]


def test_rows_of_an_earlier_run_stay_if_its_settings_were_the_same(bench, tmp_path) -> None:
    write_table([{"system": "a", "regions": 2}], tmp_path / "t.csv", {"steps": 3})
    assert bench.earlier_rows(tmp_path / "t.csv", {"steps": 3}) == [{"system": "a", "regions": 2}]
    assert (
        bench.earlier_rows(tmp_path / "t.csv", {"steps": 4})
        == bench.earlier_rows(tmp_path / "other.csv", {"steps": 3})
        == []
    )
