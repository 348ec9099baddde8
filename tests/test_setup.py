"""Setting up: what a machine lacks is said at once, pip's ways to the network are uv's too, and a
folder with a blank in its name is one like any other.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from reach import REPO, script

GB = 10**9


@pytest.fixture
def preflight(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """On a machine that has all there is to have."""
    module = script("scripts/preflight.py")
    monkeypatch.setattr(module, "has_program", lambda name: True)
    monkeypatch.setattr(module, "has_module", lambda name: True)
    monkeypatch.setattr(module, "free_bytes", lambda path: 100 * GB)
    monkeypatch.setattr(module, "memory", lambda: (16 * GB, 12 * GB))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("SATJEPA_PREFLIGHT", raising=False)
    return module


def lines(module: ModuleType, task: str, home: Path) -> list[str]:
    return list(module.lacks(task, str(home)))


def test_nothing_is_said_where_nothing_is_missing(preflight, tmp_path: Path, capfd):
    assert lines(preflight, "setup", tmp_path) == lines(preflight, "repro", tmp_path) == []
    assert capfd.readouterr() == ("", "")


LACKS = [
    ("has_program", lambda name: name != "git", ["git is not installed", "apt install git"]),
    ("has_program", lambda name: name == "git", ["no C compiler (cc, gcc", "build-essential"]),
    ("has_module", lambda name: name != "ensurepip", ["no ensurepip", "install python3.", "-venv"]),
    ("has_module", lambda name: name not in ("ssl", "lzma"), ["was built without ssl, lzma"]),
    ("free_bytes", lambda path: 7.9 * GB, ["7.9 GB of disk are free", ".venv and ", "8 GB are"]),
    ("memory", lambda: (5.9 * GB, GB), ["5.9 GB of memory", "needs 6 GB", "add swap"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "stands_in", "words"), LACKS, ids=[w[2][0] for w in LACKS])
def test_each_lack_is_one_line_with_its_cure(
    preflight, name: str, stands_in, words: list[str], tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setattr(preflight, name, stands_in)
    (line,) = lines(preflight, "repro", tmp_path)
    assert all(word in line for word in words), line
    assert "\n" not in line


def test_what_a_task_does_not_need_is_not_asked_for(preflight, tmp_path: Path, monkeypatch):
    """An environment that is there needs no room any more; setting up takes little memory."""
    monkeypatch.setattr(preflight, "memory", lambda: (2 * GB, GB))
    assert lines(preflight, "setup", tmp_path) == []
    monkeypatch.setattr(preflight, "memory", lambda: (None, None))  # not Linux
    monkeypatch.setattr(preflight, "free_bytes", lambda path: 1.5 * GB)
    assert len(lines(preflight, "setup", tmp_path)) == 1
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.ok").touch()
    assert lines(preflight, "setup", tmp_path) == lines(preflight, "repro", tmp_path) == []
    monkeypatch.setattr(preflight, "python_lacks", lambda: iter(["too old"]))
    assert lines(preflight, "setup", tmp_path) == ["too old"]  # it is what runs the installation
    assert lines(preflight, "repro", tmp_path) == []
    monkeypatch.setattr(preflight, "free_bytes", lambda path: 0.9 * GB)
    (line,) = lines(preflight, "repro", tmp_path)
    assert "0.9 GB of disk are free for" in line and "1 GB are needed" in line


def test_little_free_memory_is_a_remark_only(preflight, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "memory", lambda: (16 * GB, 2 * GB))
    assert lines(preflight, "repro", tmp_path) == []
    assert "2.0 GB of memory are free at the moment" in capsys.readouterr().err


def test_disks_are_added_up_where_they_are_one(preflight, tmp_path: Path, monkeypatch):
    """A DVC cache or a uv cache elsewhere needs its own room there."""
    (tmp_path / ".dvc").mkdir()
    cache, uv = str(tmp_path / "elsewhere"), str(tmp_path / "third/uv")
    (tmp_path / ".dvc/config.local").write_text(f'[cache]\n    dir = "{cache}"\n')
    assert preflight.dvc_cache(str(tmp_path)) == cache
    monkeypatch.setenv("UV_CACHE_DIR", uv)
    devices = {cache: 2, uv: 3}
    monkeypatch.setattr(preflight, "device_of", lambda path: devices.get(path, 1))
    free = {cache: 0.5 * GB, uv: 6 * GB}
    monkeypatch.setattr(preflight, "free_bytes", lambda path: free.get(path, 7.5 * GB))
    said = sorted(lines(preflight, "repro", tmp_path))
    assert ["0.5 GB" in said[0], "6.0 GB" in said[1]] == [True, True] and len(said) == 2
    assert "1 GB are needed" in said[0] and "7 GB are needed" in said[1]


def test_a_name_that_tools_stumble_over_is_refused(preflight, tmp_path: Path):
    for name, sign in (("a {x}", "{ and }"), ("a:b", ":")):
        (line,) = lines(preflight, "setup", tmp_path / name)
        assert f"{tmp_path / name} has {sign} in its name" in line
    assert lines(preflight, "setup", tmp_path / "My Projects" / "São [a] 'b'") == []


def test_an_unsuitable_python_is_named_alone(preflight, tmp_path: Path):
    (line,) = preflight.python_lacks((3, 9))
    assert line.startswith(f"Python 3.11 is needed, {sys.executable} is 3.9: install it")
    assert "make PYTHON=" in line
    assert "32-bit" in next(preflight.python_lacks((3, 11), maxsize=2**31 - 1))
    assert "musl" in next(preflight.python_lacks((3, 12), soabi="cpython-312-x86_64-linux-musl"))
    assert list(preflight.python_lacks((3, 13), soabi="")) == []


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.10"])
def test_an_old_python_can_say_so(version: str, tmp_path: Path):
    """The script itself runs on it."""
    folders = [*Path.home().glob(f".pyenv/versions/{version}*/bin"), Path("/usr/bin")]
    programs = [folder / f"python{version}" for folder in folders]
    old = next((program for program in programs if program.exists()), None)
    if old is None:
        pytest.skip(f"no Python {version} on this machine")
    shutil.copytree(REPO / "scripts", tmp_path / "scripts")
    done = subprocess.run(
        [old, tmp_path / "scripts/preflight.py", "setup"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"preflight: Python 3.11 is needed, {old} is {version}: " in done.stderr


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (11.0, 7.0)),
        ({"memory.max": "max", "memory.current": "5"}, (11.0, 7.0)),
        ({"memory.max": str(4 * 2**30), "memory.current": str(2**30)}, (5.0, 4.0)),
        ({"memory/memory.limit_in_bytes": str(2 * 2**30)}, (3.0, 3.0)),
    ],
)
def test_memory_is_what_the_container_may_have(files: dict, expected: tuple, tmp_path: Path):
    """A machine of 10 GiB, 6 free, and 1 GiB of swap."""
    info = {"MemTotal": 10, "MemFree": 2, "MemAvailable": 6, "SwapTotal": 1, "SwapFree": 1}
    (tmp_path / "proc").mkdir()
    rows = [f"{name}:   {size * 2**20} kB\n" for name, size in info.items()]
    (tmp_path / "proc/meminfo").write_text("".join(rows))
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    preflight = script("scripts/preflight.py")
    assert tuple(size / 2**30 for size in preflight.memory(str(tmp_path))) == expected
    assert preflight.memory(str(tmp_path / "none")) == (None, None)


def test_verify_asks_git_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    preflight = script("scripts/preflight.py")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (line,) = preflight.repository_lacks(str(tmp_path))
    assert "is no git repository with a commit" in line
    assert list(preflight.repository_lacks(str(REPO))) == []
    fake = tmp_path / "bin/git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho \"fatal: detected dubious ownership in '/x'\" >&2\nexit 128\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    (line,) = preflight.repository_lacks(str(tmp_path))
    assert f"git config --global --add safe.directory '{tmp_path}'" in line


def test_the_command_line_of_preflight(preflight, monkeypatch, capsys):
    assert preflight.main(["lunch"]) == 2
    monkeypatch.setattr(preflight, "has_program", lambda name: False)
    assert preflight.main(["setup"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in said[1:]] == ["preflight"] * 3
    monkeypatch.setenv("SATJEPA_PREFLIGHT", "skip")
    assert preflight.main(["setup"]) == 0


def test_a_folder_that_cannot_be_written_is_named(preflight, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(preflight.os, "access", lambda path, mode: False)
    assert f"{tmp_path} cannot be written: clone where" in lines(preflight, "setup", tmp_path)[0]


# ---- the network, as pip knows it ----

PIP_FILES = {"index-url": "https://mirror/simple", "cert": "/a/pip.pem", "proxy": "http://p:1"}
SAID_FOR_UV = {"UV_DEFAULT_INDEX": "https://uv", "SSL_CERT_FILE": "/b/uv.pem", "HTTPS_PROXY": "q"}


@pytest.mark.parametrize(
    ("given", "pip", "expected"),
    [
        ({}, PIP_FILES, {"UV_DEFAULT_INDEX": "https://mirror/simple", "HTTPS_PROXY": "http://p:1",
                         "SSL_CERT_FILE": "/a/pip.pem", "UV_SYSTEM_CERTS": "true"}),
        ({"PIP_INDEX_URL": "https://i", "PIP_CERT": "/c.pem"}, {},
         {"UV_DEFAULT_INDEX": "https://i", "SSL_CERT_FILE": "/c.pem", "PIP_CERT": "/c.pem"}),
        ({"UV_INDEX_URL": "https://u", "PIP_INDEX_URL": "https://i"}, {},
         {"UV_DEFAULT_INDEX": "https://u", "PIP_INDEX_URL": "https://i"}),
        (SAID_FOR_UV, PIP_FILES, SAID_FOR_UV),
        ({"REQUESTS_CA_BUNDLE": "/r.pem"}, {}, {"SSL_CERT_FILE": "/r.pem", "PIP_CERT": None}),
        ({"SSL_CERT_FILE": "/s.pem"}, {}, {"SSL_CERT_FILE": "/s.pem", "PIP_CERT": "/s.pem"}),
        ({"UV_SYSTEM_CERTS": "false"}, {}, {"UV_SYSTEM_CERTS": "false"}),
        ({"UV_NATIVE_TLS": "0"}, {}, {"UV_NATIVE_TLS": "0", "UV_SYSTEM_CERTS": None}),
        ({}, {}, {"PIP_CERT": "(system)", "SSL_CERT_FILE": None, "UV_DEFAULT_INDEX": None}),
    ],
)  # fmt: skip
def test_what_pip_is_told_uv_is_told(
    given: dict, pip: dict, expected: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install = script("scripts/install.py")
    bundle = tmp_path / "system.pem"
    bundle.touch()
    monkeypatch.setattr(install, "CERTIFICATES", ("/no/such.pem", str(bundle)))
    env = install.environment(given, pip)
    wanted = {k: str(bundle) if v == "(system)" else v for k, v in expected.items()}
    assert {name: env.get(name) for name in expected} == wanted


def test_pips_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://g\ntimeout = 7\n[install]\nindex-url = https://i\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    found = script("scripts/install.py").pip_files(sys.executable)
    assert (found["index-url"], found["timeout"]) == ("https://i", "7")


def test_a_setup_that_was_stopped_goes_on(tmp_path: Path):
    """All five steps at first; then only what is not there."""
    install = script("scripts/install.py")
    inside = tmp_path / "bin/python"
    first = install.commands(tmp_path, "python3")
    assert first[0] == ["python3", "-m", "venv", str(tmp_path)]
    assert first[1][1:4] == ["-m", "pip", "install"] and first[1][-1] == "uv"
    assert [step[-1] for step in first[2:]] == ["requirements.txt", "."]
    inside.parent.mkdir()
    inside.write_text("#!/bin/sh\nexit 1\n")  # a Python in which there is no pip
    inside.chmod(0o755)
    assert install.commands(tmp_path, "python3")[0] == [str(inside), "-m", "ensurepip"]
    (inside.parent / "uv").touch()
    assert [step[-1] for step in install.commands(tmp_path, "python3")] == ["requirements.txt", "."]


# ---- make ----

FAKE = """#!/bin/sh
echo "$*" >> "{log}"
[ "$1" = scripts/install.py ] && mkdir -p .venv/bin && cp "$0" .venv/bin/python
[ "$*" = "scripts/preflight.py $LACKING" ] && exit 1
exit 0
"""


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    """A checkout below a folder with blanks and brackets in its name, and a Python that only notes
    what it is asked.
    """
    folder = tmp_path / "My Projects [x]/sat jepa"
    folder.mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(REPO / name, folder)
    (folder / "py 3").write_text(FAKE.format(log=folder / "log"))
    (folder / "py 3").chmod(0o755)
    return folder


def make(folder: Path, *arguments: str, **env: str) -> tuple[int, list[str]]:
    """The status of make, and what Python was asked since the last call."""
    (folder / "log").write_text("")
    command = ["make", "-s", f"PYTHON={folder / 'py 3'}", *arguments]
    env = {k: v for k, v in os.environ.items() if k not in ("PARAMS", "MAKEFLAGS")} | env
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, (folder / "log").read_text().splitlines()


def test_make_works_below_a_folder_with_a_blank(blank: Path):
    setting_up = ["scripts/preflight.py setup", "scripts/install.py"]
    run = "-m satjepa.pipeline.repro"
    assert make(blank, "repro") == (0, ["scripts/preflight.py repro", *setting_up, run])
    assert make(blank, "repro") == (0, ["scripts/preflight.py repro", run])
    assert make(blank, "setup") == (0, [])
    assert make(blank, "test") == (0, ["-m pytest -n 2 --dist loadfile"])
    other = make(blank, "repro", "PARAMS=my params.yaml")
    assert other[1][-1] == "-m satjepa.pipeline.experiment my params.yaml"


@pytest.mark.parametrize("task", ["setup", "repro", "verify"])
def test_make_stops_where_something_is_missing(blank: Path, task: str):
    status, asked = make(blank, task, LACKING=task)
    assert status == 2 and asked == [f"scripts/preflight.py {task}"]
    assert not (blank / ".venv/.ok").exists()


def test_make_without_any_python_says_so(blank: Path):
    done = subprocess.run(["make", "setup", "PYTHON="], cwd=blank, capture_output=True, text=True)
    assert done.returncode == 2 and "preflight: no python3 in PATH" in done.stderr
