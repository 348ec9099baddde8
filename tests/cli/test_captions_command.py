"""`satjepa captions import`: EarthDial's checkpoint becomes a folder, or one line says why not."""

from pathlib import Path

from cli_model import run
from earthdial_files import write_checkpoint

from satjepa.captions import earthdial
from satjepa.captions.earthdial import origin_of


def test_a_checkpoint_is_imported_once(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "theirs")
    done = run("captions", "import", tmp_path / "theirs", tmp_path / "ours")
    assert done.exit_code == 0, done.output
    assert f"wrote {tmp_path}/ours. To caption" in done.stdout
    assert f"set captions.captioner: {tmp_path}/ours in params.yaml" in done.stdout
    assert origin_of(tmp_path / "ours")["prompts"] == "earthdial"
    again = run("captions", "import", tmp_path / "theirs", tmp_path / "ours")
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/ours exists")


def test_what_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: object) -> None:
    def nothing(repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        raise OSError(f"no {repo} at {revision}\nand no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", nothing)
    done = run("captions", "import", "no/such", tmp_path / "ours", "--revision", "abc")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: no/such is no folder, and as a hub id it cannot be had")
    assert "(no no/such at abc)" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_hub_id_is_downloaded_at_its_revision(tmp_path: Path, monkeypatch: object) -> None:
    """The commit is noted; nothing but configuration, weights and tokenizer is asked for."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "snapshots" / commit
    write_checkpoint(snapshot)
    asked = []

    def download(repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo, revision, allow_patterns))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    done = run("captions", "import", "a/model", tmp_path / "ours", "--revision", "main")
    assert done.exit_code == 0, done.output
    assert asked == [("a/model", "main", list(earthdial.WANTED))]
    assert origin_of(tmp_path / "ours") == {
        "source": "a/model",
        "revision": commit,
        "prompts": "earthdial",
    }
