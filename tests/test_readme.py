"""README says nothing that is not so: its links lead somewhere, and its commands are commands of
this repository.
"""

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import yaml
from reach import REPO
from readme_table import BLOCK, filled

from satjepa.config import load_params
from satjepa.config.baselines import arm_names, read_arm

README = (REPO / "README.md").read_text() if (REPO / "README.md").exists() else ""
# Commands of others, by their first words. What else stands in a bash block must be checked below,
# or added here.
FOREIGN = {
    "git clone",
    "conda env",
    "conda activate",
    "cd",
    "export",
    "source",
    "bash",
    "jupyter lab",
    "pytest",
}
DVC = {
    "repro",
    "status",
    "dag",
    "metrics",
    "params",
    "plots",
    "exp",
    "freeze",
    "unfreeze",
    "commit",
    "import-url",
}


def commands(text: str) -> list[list[str]]:
    """The words of every command in the ```bash blocks of a text; comments and assignments in front
    are left out.
    """
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [
        re.sub(r"(^|\s)#.*", "", line)
        for block in blocks
        for line in block.replace("\\\n", " ").splitlines()
    ]
    found = [shlex.split(part) for line in lines for part in re.split(r"&&|;", line)]
    found = [
        words[next((i for i, w in enumerate(words) if not re.match(r"[A-Z_]+=", w)), 0) :]
        for words in found
    ]
    return [words for words in found if words]


def targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(), re.MULTILINE))


def options_of(subcommand: str) -> set[str]:
    """The options of a subcommand of satjepa's command line."""
    import typer

    from satjepa.cli import app

    known = typer.main.get_command(app).commands
    assert subcommand in known, f"satjepa has no {subcommand}; it has {', '.join(known)}"
    return {"--help"} | {o for p in known[subcommand].params for o in (*p.opts, *p.secondary_opts)}


def check(words: list[str]) -> None:
    """Fail unless the command is one that this repository has."""
    files = [word.rpartition("=")[2] for word in words if re.search(r"\.(ipynb|ya?ml|py)$", word)]
    made = ("reports/", "runs/", "artifacts/")
    assert all((REPO / name).exists() for name in files if not name.startswith(made)), (
        f"no such file: {words}"
    )
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= targets(), words
    elif words[0] == "satjepa":
        given = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert given <= options_of(words[1]), words
    elif words[0] == "dvc":
        assert words[1] in DVC, words
    elif words[:2] == ["python", "-m"]:
        module = REPO / words[2].replace(".", "/")
        assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), words
    else:
        assert words[0] in FOREIGN or " ".join(words[:2]) in FOREIGN, f"not known here: {words}"


def links(text: str) -> list[str]:
    """The targets of markdown links and images, of HTML images too, that are not on the web."""
    found = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(
        r"<img[^>]*\bsrc=\"([^\"]+)\"", text
    )
    return [link for link in found if not re.match(r"https?:|mailto:", link)]


def anchors(text: str) -> set[str]:
    """What a link may name after #: the headings, as they are rendered."""
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_tables_are_those_of_the_csv():
    assert [block[1:3] for block in BLOCK.findall(README)] == [
        (preset, folder)
        for folder in ("experiments/table", "reports")
        for preset in ("strong", "gentle")
    ]
    assert filled(README) == README, "python tests/readme_table.py writes them anew"


def test_the_table_was_made_with_the_parameters_of_today():
    """And the text says with which."""
    params = load_params(REPO / "params.yaml")
    settings = json.loads((REPO / "reports/table.settings.json").read_text())
    told = {
        "steps": params.train.steps,
        "ablation_steps": params.ablate.steps,
        "guidance": params.sample.guidance,
    }
    told |= {"published_steps": params.published.steps, "sampler_steps": params.sample.steps}
    assert {name: settings[name] for name in told} == told
    assert set(pd.read_csv(REPO / "reports/table.csv")["n"]) == {params.eval.max_patches}
    words = " ".join(README.split())
    budget = f"one seed, {params.train.steps} steps of {params.train.batch}"
    assert f"{budget}) on {params.eval.max_patches} patches" in words
    assert (
        f"trained for {params.published.steps} steps" in words
        and f"for {params.ablate.steps} steps" in words
    )


def test_the_experiment_was_made_with_its_parameters():
    """And the text says with which, of how many seeds it is so far, and whether today's would be
    others.
    """
    today = yaml.safe_load((REPO / "params.table.yaml").read_text())
    folder = REPO / "experiments/table"
    settings = json.loads((folder / "table.settings.json").read_text())
    rows = pd.read_csv(folder / "table.csv")
    seeds = today["ablate"]["seeds"]
    words = " ".join(README.split())
    assert f"{rows['seeds'].max()} of {len(seeds)} seeds" in words
    found = [yaml.safe_load(path.read_text()) for path in folder.glob("seed-*/params.yaml")]
    assert len(found) == rows["seeds"].max()
    for made in found:
        how = made["train"]
        sampler = made["sample"]
        assert how["steps"] == made["ablate"]["steps"] == made["published"]["steps"]
        assert how["steps"] == made["baselines"]["train"]["steps"]
        told = {
            "steps": how["steps"],
            "guidance": sampler["guidance"],
            "sampler_steps": sampler["steps"],
        }
        assert {name: settings[name] for name in told} == told
        assert set(rows["n"]) == {made["eval"]["max_patches"]}
        assert f"the same {how['steps']} steps of {how['batch']} patches" in words
        assert f"on {made['eval']['max_patches']} patches of eight regions" in words
        made["ablate"]["seeds"] = seeds
        made["data"].setdefault(
            "white", None
        )  # younger than the experiment, which did what null says
        assert (made != today) == ("`params.table.yaml` has changed since" in words)


def test_no_baseline_of_the_experiment_is_starved():
    """None has fewer steps, or smaller batches, than the model itself."""
    params = load_params(REPO / "params.table.yaml")
    assert params.train.steps == params.ablate.steps == params.published.steps
    arms = [read_arm(params, name) for name in arm_names(params)]
    budgets = [(arm.train.steps, arm.train.batch) for arm in arms if arm.train]
    assert len(budgets) > 4 and min(budgets)[0] >= params.train.steps
    assert min(batch for _, batch in budgets) >= params.train.batch


def test_what_the_text_says_of_the_land_a_system_needs():
    rows = pd.read_csv(REPO / "docs/sample_efficiency.csv")
    words = " ".join(README.split())
    settings = json.loads((REPO / "docs/sample_efficiency.settings.json").read_text())
    assert rows["system"].nunique() == 3
    for _, system in rows.groupby("system"):
        assert f"{', '.join(f'{psnr:.1f}' for psnr in system['psnr'])} dB" in words
        regions = "{}, {} and {}".format(*system["regions"])
    assert f"for {settings['steps']} steps on {regions} regions" in words


def test_readme_leads_a_reader_in():
    assert ["make", "repro"] in commands(README)
    assert ["make", "test"] in commands(README)
    assert links(README), "no picture, no link"


@pytest.mark.parametrize("words", commands(README), ids=lambda words: " ".join(words))
def test_a_command_is_one_of_this_repository(words: list[str]):
    check(words)


@pytest.mark.parametrize("link", links(README))
def test_a_link_leads_somewhere(link: str):
    path, _, anchor = link.partition("#")
    assert not path or (REPO / path).exists()
    target = README if not path else Path(REPO / path).read_text() if path.endswith(".md") else ""
    assert not anchor or anchor in anchors(target)


def test_files_named_in_the_text_exist():
    known = {
        path.name
        for folder in ("notebooks", "reports/notebooks")
        for path in (REPO / folder).glob("*.ipynb")
    }
    assert set(re.findall(r"\b\d\d_\w+\.ipynb\b", README)) <= known
    assert all(
        (REPO / name).exists()
        for name in re.findall(r"`((?:satjepa|tests|benchmarks)/[\w/.]+)`", README)
    )


def test_targets_named_in_the_text_exist():
    assert set(re.findall(r"`make ([a-z]+)", README)) <= targets()


def test_the_makefile_tells_of_every_target():
    told = set(re.findall(r"^([a-z]+):.*##", (REPO / "Makefile").read_text(), re.MULTILINE))
    assert told == targets()
    assert {
        "setup",
        "repro",
        "table",
        "test",
        "smoke",
        "lab",
        "verify",
        "lock",
        "clean",
        "lint",
    } <= told


def test_the_checks_themselves():
    """What a wrong README would say is refused."""
    text = "```bash\n# first\nOMP=1 make repro PARAMS=params.yaml && cd x  # it's; b\n"
    text += "python -m satjepa.pipeline.run_notebook \\\n  a\n```\n```\nno\n```\n"
    wanted = [
        ["make", "repro", "PARAMS=params.yaml"],
        ["cd", "x"],
        ["python", "-m", "satjepa.pipeline.run_notebook", "a"],
    ]
    assert commands(text) == wanted
    for words in wanted:
        check(words)
    for line in [
        "make reproo",
        "dvc repo",
        "python -m satjepa.absent",
        "curl x",
        "make repro PARAMS=absent.yaml",
    ]:
        with pytest.raises(AssertionError):
            check(shlex.split(line))
    assert links('[a](b.md#c) ![d](e.png "t") [f](https://g) <img width=3 src="h.png">') == [
        "b.md#c",
        "e.png",
        "h.png",
    ]
    assert anchors("# The table, as measured\n## Two") == {"the-table-as-measured", "two"}


def test_ci_runs_what_readme_says():
    lines = [
        line
        for line in (REPO / ".ci/run").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "set -euo pipefail"
    assert lines[-2:] == ["make test", "make smoke"]
