"""README says nothing that is not so: its links lead somewhere, and its commands are commands of
this repository.
"""

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from reach import REPO
from result_tables import BLOCK, PAGES, filled

from satjepa.config import load_params
from satjepa.config.files import read_yaml
from satjepa.evaluation.results import arm_steps, baseline_steps
from satjepa.evaluation.table import read_scores

README = (REPO / "README.md").read_text()
DOCS = sorted((REPO / "docs").glob("*.md"))
RESULTS = (REPO / "docs/results.md").read_text()
BUDGET = ("steps", "jepa_share", "batch", "lr", "muon_lr")  # of a training that is compared
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
    "accelerate launch",
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


def options_of(words: list[str]) -> set[str]:
    """The options of a subcommand of satjepa's command line, or of one of a group of them."""
    import typer

    from satjepa.cli import app

    command = typer.main.get_command(app)
    while known := getattr(command, "commands", None):
        subcommand, *words = words
        assert subcommand in known, f"satjepa has no {subcommand}; it has {', '.join(known)}"
        command = known[subcommand]
    return {"--help"} | {o for p in command.params for o in (*p.opts, *p.secondary_opts)}


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
        assert given <= options_of(words[1:]), words
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
    full = ["strong", "gentle"]
    blocks = [(bool(block[1]), block[2], block[3]) for block in BLOCK.findall(README)]
    assert blocks == [(True, "strong", "experiments/table")]
    blocks = [(bool(block[1]), block[2], block[3]) for block in BLOCK.findall(RESULTS)]
    wanted = [(False, preset, "experiments/table") for preset in full]
    assert blocks == wanted + [(False, preset, "reports") for preset in full]
    for name in PAGES:
        text = (REPO / name).read_text()
        assert filled(text) == text, "python tests/result_tables.py writes them anew"


def test_the_table_of_the_demo_was_made_with_the_parameters_of_today():
    """And the text says with which."""
    params = load_params(REPO / "params.yaml")
    settings = json.loads((REPO / "reports/table.settings.json").read_text())
    expected = {
        "steps": params.train.steps,
        "ablation_steps": arm_steps(params, "ablation"),
        "published_steps": arm_steps(params, "published"),
        "baseline_steps": baseline_steps(params),
        "guidance": params.sample.guidance,
        "sampler_steps": params.sample.steps,
    }
    assert {name: settings[name] for name in expected} == expected
    rows = read_scores(REPO / "reports/table.csv")
    assert {row["n"] for row in rows} == {params.eval.max_patches}
    words = " ".join(RESULTS.split())
    budget = f"one seed, {params.train.steps} steps of {params.train.batch}"
    assert f"{budget}) on {params.eval.max_patches} patches" in words
    (published,) = set(arm_steps(params, "published").values())
    (ablations,) = set(arm_steps(params, "ablation").values())
    assert f"trained for {published} steps here, the ablations for {ablations} steps" in words


def made_of(params: dict) -> dict:
    """What a params file says of training and scoring the model itself, whatever its sections are
    called in which year.
    """
    train = {key: value for key, value in params["train"].items() if key in BUDGET}
    return {"train": train, "sample": params["sample"], "patches": params["eval"]["max_patches"]}


def test_the_experiment_was_made_with_its_parameters():
    """And the text says with which, and of how many seeds."""
    params = load_params(REPO / "params.table.yaml")
    folder = REPO / "experiments/table"
    settings = json.loads((folder / "table.settings.json").read_text())
    rows = pd.DataFrame(read_scores(folder / "table.csv"))
    words = " ".join(RESULTS.split())
    assert f"{rows['seeds'].max():g} of {len(params.seeds)} seeds" in words
    found = [read_yaml(path) for path in folder.glob("seed-*/params.yaml")]
    assert len(found) == rows["seeds"].max()
    for values in found:
        assert {key: made_of(values)[key] for key in ("train", "patches")} == {
            key: made_of(params.as_dict())[key] for key in ("train", "patches")
        }
        sampler = values["sample"]
        assert (settings["steps"], settings["guidance"], settings["sampler_steps"]) == (
            values["train"]["steps"], sampler["guidance"], sampler["steps"],
        )  # fmt: skip
        steps = f"{values['train']['steps']} steps of {values['train']['batch']} patches"
        assert f"the same {steps}" in words
        assert f"on {values['eval']['max_patches']} patches of eight regions" in words
    assert set(rows["n"]) == {params.eval.max_patches}


def test_every_row_of_the_table_has_the_command_that_makes_it():
    """Each arm of the experiment stands beside a stage of that name."""
    params = load_params(REPO / "params.table.yaml")
    for name in params.baselines.arms:
        assert f"| `baselines.arms.{name}` | `dvc repro score_baselines@{name}-0` |" in RESULTS
    for name in params.arms:
        assert f"| `arms.{name}` | `dvc repro score@{name}-0` |" in RESULTS


def test_no_baseline_of_the_experiment_is_starved():
    """None has fewer steps, or smaller batches, than the model itself."""
    params = load_params(REPO / "params.table.yaml")
    steps = [*arm_steps(params, "ablation").values(), *arm_steps(params, "published").values()]
    assert set(steps) == {params.train.steps}
    fits = [fit for name in params.baselines.arms if (fit := params.baselines.fit(name))]
    assert len(fits) > 4 and min(fit.steps for fit in fits) >= params.train.steps
    assert min(fit.batch for fit in fits) >= params.train.batch


def test_what_the_text_says_of_the_land_a_system_needs():
    rows = pd.read_csv(REPO / "docs/sample_efficiency.csv")
    words = " ".join(RESULTS.split())
    settings = json.loads((REPO / "docs/sample_efficiency.settings.json").read_text())
    assert rows["system"].nunique() == 3
    for _, system in rows.groupby("system"):
        assert f"{', '.join(f'{psnr:.1f}' for psnr in system['psnr'])} dB" in words
        regions = "{}, {} and {}".format(*system["regions"])
    assert f"for {settings['steps']} steps on {regions} regions" in words


TEXTS = {path.relative_to(REPO): path.read_text() for path in [REPO / "README.md", *DOCS]}
COMMANDS = [words for text in TEXTS.values() for words in commands(text)]
LINKS = [(page, link) for page, text in TEXTS.items() for link in links(text)]


def test_readme_leads_a_reader_in():
    first, *_ = commands(README)
    assert first == ["make", "setup"]
    assert ["satjepa", "forecast", "--example"] in commands(README)[:3]
    assert ["make", "repro"] in commands(README) and ["make", "test"] in commands(README)
    assert links(README), "no picture, no link"
    assert len(README.splitlines()) <= 170


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words))
def test_a_command_is_one_of_this_repository(words: list[str]):
    check(words)


@pytest.mark.parametrize(("page", "link"), LINKS, ids=str)
def test_a_link_leads_somewhere(page: Path, link: str):
    path, _, anchor = link.partition("#")
    target = (REPO / page).parent / path if path else REPO / page
    assert target.exists()
    assert not anchor or anchor in anchors(target.read_text())


def test_the_architecture_is_drawn_by_its_script():
    import runpy

    drawn = runpy.run_path(str(REPO / "docs/architecture.py"))["draw"]()
    assert (REPO / "docs/architecture.svg").read_text(encoding="utf-8") == drawn


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
