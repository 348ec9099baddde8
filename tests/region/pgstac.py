"""A real STAC API on this machine: PostgreSQL with PostGIS, pgstac, and stac-fastapi before it.

It wants Debian's PostgreSQL with PostGIS, and a Python with stac-fastapi-pgstac in an environment
of its own, named by SATJEPA_PGSTAC:

    apt-get install --no-install-recommends postgresql-15-postgis-3
    python3 -m venv pgstac
    pgstac/bin/pip install "stac-fastapi-pgstac[server]" "pypgstac[psycopg]" uvicorn
    export SATJEPA_PGSTAC=$PWD/pgstac/bin/python
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
EXTENSIONS = sorted(Path("/usr/share/postgresql").glob("*/extension/postgis.control"))
USER = "postgres"  # who runs the database: it refuses root
SECONDS = 300  # to start


def missing() -> str:
    """What is not installed, in words; "" where all is."""
    if not PROGRAMS or not EXTENSIONS:
        return "no PostgreSQL with PostGIS (apt-get install postgresql-15-postgis-3)"
    python = os.environ.get("SATJEPA_PGSTAC", "")
    if not python or not Path(python).is_file():
        return (
            "SATJEPA_PGSTAC names no Python with stac-fastapi-pgstac (see tests/region/pgstac.py)"
        )
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def as_user(*command: object) -> list[str]:
    """A command as one that PostgreSQL accepts."""
    words = [str(word) for word in command]
    return ["runuser", "-u", USER, "--", *words] if os.geteuid() == 0 else words


@contextmanager
def database(folder: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL of its own in a folder; gives the variables by which it is found."""
    port = free_port()
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
    data = folder / "data"
    control = PROGRAMS[-1].with_name("pg_ctl")
    run = {"check": True, "capture_output": True, "cwd": folder}
    options = ["-A", "trust", "--locale=C.UTF-8", "-U"]
    subprocess.run(as_user(PROGRAMS[-1], "-D", data, *options, USER), **run)
    settings = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    )
    log = folder / "log"
    start = as_user(control, "-D", data, "-o", settings, "-l", log, "-w", "-t", SECONDS, "start")
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    access = {
        "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": USER, "PGDATABASE": "stac",
        "PGPASSWORD": "x",
    }  # fmt: skip
    try:
        create = PROGRAMS[-1].with_name("createdb")
        subprocess.run([create, "stac"], env=os.environ | access, **run)
        yield access
    finally:
        subprocess.run(as_user(control, "-D", data, "-m", "immediate", "stop"), **run)


@contextmanager
def pgstac(folder: Path, items: list[dict], collection: dict) -> Iterator[str]:
    """The URL of a STAC API that has some items."""
    python = os.environ["SATJEPA_PGSTAC"]
    load = Path(python).with_name("pypgstac")
    with tempfile.TemporaryDirectory() as place, database(Path(place)) as access:
        env = os.environ | access
        run = {"check": True, "capture_output": True, "env": env}
        rows = "".join(json.dumps(item) + "\n" for item in items)
        (folder / "items.ndjson").write_text(rows)
        (folder / "collection.json").write_text(json.dumps(collection))
        subprocess.run([load, "migrate"], **run)
        for kind, name in (("collections", "collection.json"), ("items", "items.ndjson")):
            subprocess.run([load, "load", kind, folder / name, "--method", "upsert"], **run)
        port = free_port()
        app = ["-m", "uvicorn", "--factory", "stac_fastapi.pgstac.app:create_app"]
        words = [python, *app, "--port", str(port), "--log-level", "warning"]
        with subprocess.Popen(words, env=env) as server:
            try:
                yield ready(f"http://127.0.0.1:{port}/", server)
            finally:
                server.terminate()


def ready(url: str, server: subprocess.Popen) -> str:
    """The URL, when something answers there."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return url
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"no STAC API at {url}")
