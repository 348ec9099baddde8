"""Does this machine have what satjepa needs? `python3 scripts/preflight.py setup|repro|verify`

Prints one line for each thing that is missing, with the cure, and returns 1; silent and 0 where
nothing is. `make` runs it first, so that a run of twenty minutes does not end for want of disk.
SATJEPA_PREFLIGHT=skip passes it over.

It must complain on any Python that a machine may have, so it is written for Python 2.7 and newer,
without a package.
"""

from __future__ import print_function

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GB = 10**9
PYTHON = (3, 11)
VENV_GB = 7  # .venv, and uv's cache where it cannot share its files with .venv
CACHE_GB = 1  # DVC's cache, and what the stages leave
MEMORY_GB = 6  # 4.9 at the peak, and the system
PEAK_GB = 5
MODULES = ("ssl", "zlib", "ctypes", "sqlite3", "bz2", "lzma")  # a Python can be built without
COMPILERS = ("cc", "gcc", "clang")


def python_lacks(version=None, maxsize=None, soabi=None):
    """Lines about the interpreter that is to run satjepa: age, word size, C library, modules."""
    version = tuple(version or sys.version_info)[:2]
    if version < PYTHON:
        yield (
            "Python %d.%d is needed, %s is %d.%d: install it (apt install python3.11 "
            "python3.11-venv, or pyenv, or conda env create -f environment.yml), then: "
            "make PYTHON=/path/to/python3.11 ..." % (PYTHON + (sys.executable,) + version)
        )
        return  # all else would be about the wrong one
    if (maxsize or sys.maxsize) < 2**32:
        yield "%s is a 32-bit Python; torch needs a 64-bit one" % sys.executable
    if soabi is None:
        import sysconfig

        soabi = sysconfig.get_config_var("SOABI") or ""
    if "musl" in soabi:
        yield "this system has musl (Alpine); torch is built for glibc: use Debian, Ubuntu, Fedora"
    lost = [name for name in MODULES if not has_module(name)]
    if lost:
        yield (
            "%s was built without %s: install the libraries' headers and build it again, or use "
            "the system's Python" % (sys.executable, ", ".join(lost))
        )


def venv_lacks(version=None):
    """A line where `python -m venv` cannot work, as on Debian without its package."""
    if not (has_module("venv") and has_module("ensurepip")):
        version = tuple(version or sys.version_info)[:2]
        yield (
            "%s cannot make virtual environments (no ensurepip): apt install python%d.%d-venv"
            % ((sys.executable,) + version)
        )


def has_module(name):
    """Whether a module can be imported."""
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def tools_lack():
    """Lines about programs: git, and a C compiler, by which torch.compile makes its kernels."""
    if not has_program("git"):
        yield "git is not installed: apt install git (dnf install git, xcode-select --install)"
    compilers = [os.environ["CC"].split()[0]] if os.environ.get("CC", "").strip() else COMPILERS
    if not any(has_program(name) for name in compilers):
        yield (
            "no C compiler (%s): apt install build-essential (dnf install gcc gcc-c++, "
            "xcode-select --install)" % ", ".join(compilers)
        )


def has_program(name):
    """Whether a program is in PATH, or there where its name is a path."""
    folders = [""] if os.path.dirname(name) else os.environ.get("PATH", "").split(os.pathsep)
    paths = [os.path.join(folder, name) for folder in folders]
    return any(os.path.isfile(path) and os.access(path, os.X_OK) for path in paths)


def disk_lacks(home, fresh, runs):
    """Lines about folders that are too full or cannot be written. fresh: .venv is to be made.
    runs: the pipeline is to run.
    """
    venv = os.path.join(home, ".venv")
    wants = [(venv, VENV_GB)] if fresh else []
    cache = uv_cache()
    if fresh and device_of(cache) != device_of(venv):
        wants.append((cache, VENV_GB))
    if runs:
        wants += [(dvc_cache(home), CACHE_GB)]
    together = {}
    for path, size in wants:
        device = device_of(path)
        paths, sum_gb = together.get(device, ([], 0))
        together[device] = (paths + [path], sum_gb + size)
    for paths, size in together.values():
        for path in paths:
            if not os.access(standing(path), os.W_OK):
                yield "%s cannot be written: clone where you may write" % standing(path)
        free = free_bytes(paths[0])
        if free < size * GB:
            yield (
                "%.1f GB of disk are free for %s; %d GB are needed: free some, or clone onto a "
                "larger disk" % (free / float(GB), " and ".join(paths), size)
            )


def uv_cache():
    """Where uv keeps what it downloads."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("UV_CACHE_DIR") or os.path.join(home, "uv")


def dvc_cache(home):
    """DVC's cache: below .dvc, or where .dvc/config.local or .dvc/config say."""
    for name in ("config.local", "config"):
        path = os.path.join(home, ".dvc", name)
        section = ""
        for line in lines_of(path):
            key, _, value = (part.strip() for part in line.partition("="))
            if key.startswith("["):
                section = key
            elif section == "[cache]" and key == "dir" and value:
                return os.path.normpath(os.path.join(home, ".dvc", value.strip("\"'")))
    return os.path.join(home, ".dvc", "cache")


def standing(path):
    """The path itself, or the nearest folder above it that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or os.curdir
    return path


def device_of(path):
    """The number of the file system that a path is on, or would be."""
    return os.stat(standing(path)).st_dev


def free_bytes(path):
    """Bytes that may still be written there."""
    found = os.statvfs(standing(path))
    return found.f_bavail * found.f_frsize


def memory_lacks():
    """A line where the machine, or the container, has too little memory, swap counted."""
    total, free = memory()
    if total is not None and total < MEMORY_GB * GB:
        yield (
            "%.1f GB of memory; the pipeline needs %d GB: use a larger machine, raise the "
            "container's limit, or add swap" % (total / float(GB), MEMORY_GB)
        )
    elif free is not None and free < PEAK_GB * GB:
        print(
            "preflight: %.1f GB of memory are free at the moment, and the pipeline takes up to "
            "%d GB: close what you can" % (free / float(GB), PEAK_GB),
            file=sys.stderr,
        )


def memory(root="/"):
    """(all, free) bytes of memory with swap, as far as a container lets it have them; None where
    the system does not say.
    """
    info = {}
    for line in lines_of(os.path.join(root, "proc/meminfo")):
        name, _, rest = line.partition(":")
        info[name] = int(rest.split()[0]) * 1024
    if "MemTotal" not in info:
        return (None, None)
    total, free = info["MemTotal"], info.get("MemAvailable", info["MemTotal"])
    for limit, used in (
        ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes",
         "sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):  # fmt: skip
        bound = number_in(os.path.join(root, limit))
        if bound is not None and bound < total:
            total = bound
            free = min(free, bound - (number_in(os.path.join(root, used)) or 0))
    return (total + info.get("SwapTotal", 0), free + info.get("SwapFree", 0))


def number_in(path):
    """The whole number that a file holds; None where it holds none ("max")."""
    lines = lines_of(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def lines_of(path):
    """The lines of a file; none where it cannot be read."""
    try:
        with open(path) as file:
            return file.read().splitlines()
    except (IOError, OSError, ValueError):
        return []


def repository_lacks(home):
    """A line where git does not take the folder for a repository, and what it says."""
    if not has_program("git"):
        return
    asked = subprocess.Popen(
        ["git", "rev-parse", "--verify", "-q", "HEAD"], cwd=home, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True,
    )  # fmt: skip
    message = asked.communicate()[1]
    if "dubious ownership" in message:
        yield (
            "the folder belongs to another user, so git does not look into it: "
            "git config --global --add safe.directory '%s'" % home
        )
    elif asked.returncode:
        words = message.strip().splitlines()
        yield (
            "%s is no git repository with a commit (%s): git clone it"
            % (home, words[0] if words else "no HEAD")
        )


def name_lacks(home):
    """A line where the folder's name has a sign that PATH or DVC's progress bars trip over."""
    odd = [sign for sign in "{}:" if sign in home]
    if odd:
        yield "the folder %s has %s in its name, at which tools stumble: rename it" % (
            home,
            " and ".join(odd),
        )


def lacks(task, home=HERE):
    """All that is missing for a task: setup, repro, or verify, in the order in which to mend it."""
    fresh = not os.path.exists(os.path.join(home, ".venv", ".ok"))
    wrong_python = list(python_lacks()) if fresh or task == "setup" else []
    for line in wrong_python:
        yield line
    if fresh and not wrong_python and not os.path.exists(os.path.join(home, ".venv/bin/pip")):
        for line in venv_lacks():
            yield line
    for line in name_lacks(home):
        yield line
    for line in tools_lack():
        yield line
    for line in disk_lacks(home, fresh, task != "setup"):
        yield line
    if task != "setup":
        for line in memory_lacks():
            yield line
    if task == "verify":
        for line in repository_lacks(home):
            yield line


def main(arguments):
    """The command line; returns its exit status."""
    if len(arguments) != 1 or arguments[0] not in ("setup", "repro", "verify"):
        print("usage: preflight.py setup|repro|verify", file=sys.stderr)
        return 2
    if os.environ.get("SATJEPA_PREFLIGHT") == "skip":
        return 0
    missing = list(lacks(arguments[0]))
    for line in missing:
        print("preflight: " + line, file=sys.stderr)
    if missing:
        print("preflight: SATJEPA_PREFLIGHT=skip goes on all the same", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
