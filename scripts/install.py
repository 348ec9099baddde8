"""Bring .venv up to requirements.txt: `python3.11 scripts/install.py`, which `make setup` calls.

uv installs, as it is many times faster than pip; but a machine is often set up for pip alone: its
index, proxy and certificates are in PIP_ variables or pip's own files, which uv does not read. So
they are carried over, and both are told to trust the certificates of the system, where a company's
proxy has its own. What is said for uv itself (UV_ variables) is left as it is.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
CERTIFICATES = (  # of Debian, Fedora, SUSE, Alpine and macOS
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# what uv reads <- where pip's users say it: other variables, then a key of pip's files
CARRIED = (
    ("UV_DEFAULT_INDEX", ("UV_INDEX_URL", "PIP_INDEX_URL"), "index-url"),
    ("UV_INSECURE_HOST", ("PIP_TRUSTED_HOST",), "trusted-host"),
    ("UV_HTTP_TIMEOUT", ("PIP_DEFAULT_TIMEOUT",), "timeout"),
    ("SSL_CERT_FILE", ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "cert"),
    ("HTTPS_PROXY", ("https_proxy", "ALL_PROXY", "all_proxy", "PIP_PROXY"), "proxy"),
)
ADVICE = """the installation failed. Behind a proxy: HTTPS_PROXY=http://host:port make setup. With a
certificate of its own: SSL_CERT_FILE=/path/to/bundle.pem make setup. With a mirror:
PIP_INDEX_URL=https://mirror/simple make setup. It goes on where it was."""


def environment(given: Mapping[str, str], pip: Mapping[str, str]) -> dict[str, str]:
    """The environment of pip and uv. given: that of this process; pip: what its files hold."""
    env = dict(given)
    for name, others, key in CARRIED:
        values = [given.get(other) for other in (name, *others)] + [pip.get(key)]
        value = next((value for value in values if value), None)
        if value is not None:
            env[name] = value
    if "UV_NATIVE_TLS" not in env:  # the older name of the same switch
        env.setdefault("UV_SYSTEM_CERTS", "true")
    if (
        not any(given.get(name) for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE"))
        and "cert" not in pip
    ):
        bundle = env.get("SSL_CERT_FILE") or next(filter(os.path.isfile, CERTIFICATES), None)
        if bundle:
            env["PIP_CERT"] = bundle
    return env


def pip_files(python: str) -> dict[str, str]:
    """What pip's files say, by key: those for all commands, and those for `install` over them."""
    command = [python, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        if section in found:
            found[section][key] = str(ast.literal_eval(value))
    return found["global"] | found["install"]


def commands(venv: Path, python: str) -> list[list[str]]:
    """What is still to be run to make and fill the environment."""
    inside = str(venv / "bin/python")
    uv = venv / "bin/uv"
    pip_there = [inside, "-m", "pip", "--version"]
    steps = []
    if not (venv / "bin/python").exists():
        steps.append([python, "-m", "venv", str(venv)])
    elif not uv.exists() and subprocess.run(pip_there, capture_output=True).returncode:
        steps.append([inside, "-m", "ensurepip"])  # stopped half-way
    if not uv.exists():
        # by force: half of it may be there
        steps.append([inside, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", "uv"])
    install = [str(uv), "pip", "install", "--python", inside]
    quiet = [] if sys.stderr.isatty() else ["-q"]  # a bar where someone looks on
    steps.append([*install, *quiet, "--compile-bytecode", "-r", "requirements.txt"])
    steps.append([*install, "-q", "--no-deps", "--no-build-isolation", "-e", "."])
    return steps


def main() -> int:
    """Make or mend .venv; returns the exit status of what failed, or 0."""
    env = environment(os.environ, pip_files(sys.executable))
    for command in commands(HOME / ".venv", sys.executable):
        status = subprocess.run(command, cwd=HOME, env=env, check=False).returncode
        if status:
            print(ADVICE, file=sys.stderr)
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
