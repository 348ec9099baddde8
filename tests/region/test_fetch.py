"""A file by HTTP from servers that fail: it comes complete and proven, or not at all."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from email.utils import formatdate

import numpy as np
import pytest
from reach import REPO
from web_server import serving

from satjepa.region import patience as pauses
from satjepa.region.fetch import cached, fetch, fetch_json
from satjepa.region.fetch_errors import (
    BusyError,
    NoSpaceError,
    RefusedError,
    UnreachableError,
    WrongBytesError,
)
from satjepa.region.part import Wanted, partial
from satjepa.region.patience import Patience

DATA = np.random.default_rng(1).bytes(1_000_000)
OTHER = np.random.default_rng(2).bytes(1_000_000)
MD5 = "md5:" + hashlib.md5(DATA).hexdigest()
QUICK = Patience(tries=4, first=0.01, longest=0.02, limit=100, connect=5, read=5)


@pytest.fixture
def web():
    with serving() as web:
        web.files["/f.bin"] = DATA
        yield web


@pytest.fixture
def slept(monkeypatch):
    """The pauses that were made, none of which takes time."""
    seconds = []
    monkeypatch.setattr(pauses.time, "sleep", seconds.append)
    return seconds


def get(web, folder, **options):
    options = {
        "size": len(DATA),
        "checksum": MD5,
        "patience": QUICK,
        "log": lambda _: None,
    } | options
    return fetch(f"{web.url}/f.bin", folder / "f.bin", **options)


def first_byte(header):
    return int(header.removeprefix("bytes=").removesuffix("-"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_nothing_else(web, tmp_path):
    path = get(web, tmp_path)
    assert path.read_bytes() == DATA and names(tmp_path) == ["f.bin"]
    assert web.asked("/f.bin", "User-Agent")[0].startswith("satjepa/")
    get(web, tmp_path)
    assert len(web.seen) == 1, "what is there and right is not fetched again"
    path.write_bytes(OTHER)
    assert get(web, tmp_path).read_bytes() == DATA, "what is there and wrong is"


def test_what_has_come_is_not_asked_for_again(web, tmp_path):
    web.faults["/f.bin"] = ["half", "half", "close"]
    assert get(web, tmp_path).read_bytes() == DATA
    assert web.asked("/f.bin")[0] is None
    starts = [first_byte(text) for text in web.asked("/f.bin")[1:]]
    assert 480_000 < starts[0] <= 500_000 and 720_000 < starts[1] <= 750_000
    assert starts[2] == starts[1]
    assert web.asked("/f.bin", "If-Range") == [None, *['"1000000"'] * 3]


@pytest.mark.parametrize("fault", [500, 502, 503, 504, 429, 408, "close", "half", "wrong"])
def test_a_passing_fault_is_passed_over(web, tmp_path, fault, slept):
    web.faults["/f.bin"] = [fault] * {"wrong": 1, 429: 6}.get(fault, 3)
    assert get(web, tmp_path).read_bytes() == DATA
    assert names(tmp_path) == ["f.bin"]


@pytest.mark.parametrize("fault", [500, "close"])
def test_a_server_that_never_answers_is_given_up(web, tmp_path, fault, slept):
    web.faults["/f.bin"] = [fault] * 99
    with pytest.raises(UnreachableError, match=r"after 4 tries.*the same command goes on"):
        get(web, tmp_path)
    assert len(web.seen) == 4 and slept == [0.01, 0.02, 0.02] and names(tmp_path) == []


def test_tries_are_counted_from_the_last_byte_that_came(web, tmp_path, slept):
    web.faults["/f.bin"] = ["half", 502, 502, "half", 502, 502, "half", 502, 502]
    assert get(web, tmp_path).read_bytes() == DATA


def test_a_server_is_waited_for_as_long_as_it_asks(web, tmp_path, slept):
    soon = formatdate(time.time() + 31, usegmt=True)
    web.faults["/f.bin"] = [(429, {"Retry-After": "7"})] * 8 + [(503, {"Retry-After": soon})]
    assert get(web, tmp_path).read_bytes() == DATA
    assert slept[:8] == [7.0] * 8 and 29 <= slept[8] <= 31
    web.faults["/f.bin"] = [(429, {"Retry-After": "60"})] * 9
    with pytest.raises(UnreachableError, match="HTTP 429, after 120 s of waiting"):
        get(web, tmp_path / "b")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(web, tmp_path, status, slept):
    web.faults["/f.bin"] = [status]
    with pytest.raises(RefusedError, match=f"HTTP {status}"):
        get(web, tmp_path)
    assert slept == [] and names(tmp_path) == []


def test_no_address(tmp_path):
    with pytest.raises(RefusedError, match="check the address"):
        fetch("htp//nowhere", tmp_path / "f.bin", patience=QUICK)


@pytest.mark.parametrize("known", [{"size": None}, {}], ids=["checksum", "both"])
def test_another_file_than_promised(web, tmp_path, known, slept):
    web.files["/f.bin"] = OTHER
    with pytest.raises(WrongBytesError, match=r"md5 .* instead of"):
        get(web, tmp_path, **known)
    assert names(tmp_path) == [] and len(web.seen) == 2


def test_a_page_instead_of_the_file_costs_nothing_that_has_come(web, tmp_path, slept):
    web.faults["/f.bin"] = ["half", (200, {})]
    assert get(web, tmp_path).read_bytes() == DATA
    assert first_byte(web.asked("/f.bin")[-1]) > 480_000


@pytest.mark.parametrize("kind", ["sha256", "git"])
def test_other_checksums(web, tmp_path, kind):
    header = f"blob {len(DATA)}\0".encode()
    digests = {"sha256": hashlib.sha256(DATA), "git": hashlib.sha1(header + DATA)}
    assert get(web, tmp_path, checksum=f"{kind}:{digests[kind].hexdigest().upper()}")
    with pytest.raises(WrongBytesError):
        get(web, tmp_path / "b", checksum=f"{kind}:{'0' * len(digests[kind].hexdigest())}")


@pytest.mark.parametrize("fault", [None, "whole"], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("tag", ['"other"', ""], ids=["tag", "no tag"])
def test_a_file_that_has_changed_begins_from_the_start(web, tmp_path, fault, tag):
    """Without checksum: never the half of one and the half of the other."""
    web.faults["/f.bin"] = ["half"]
    nothing = {"checksum": None, "size": None}
    if tag == "":
        web.tags["/f.bin"] = ""
    with pytest.raises(UnreachableError):
        get(web, tmp_path, **nothing, patience=Patience(tries=1))
    web.files["/f.bin"] = OTHER
    web.tags["/f.bin"] = tag
    web.faults["/f.bin"] = [fault]
    assert get(web, tmp_path, **nothing).read_bytes() == OTHER


def test_a_server_that_ignores_if_range_is_found_out(web, tmp_path):
    web.faults["/f.bin"] = ["half"]
    with pytest.raises(UnreachableError):
        get(web, tmp_path, checksum=None, patience=Patience(tries=1))
    web.files["/f.bin"] = OTHER
    web.tags["/f.bin"] = '"new"'
    web.heeds_if_range = False
    assert get(web, tmp_path, checksum=None).read_bytes() == OTHER


def test_bytes_of_another_checksum_are_not_gone_on_with(web, tmp_path):
    web.faults["/f.bin"] = ["half"]
    with pytest.raises(UnreachableError):
        get(web, tmp_path, patience=Patience(tries=1))
    web.files["/f.bin"] = OTHER
    checksum = "md5:" + hashlib.md5(OTHER).hexdigest()
    assert get(web, tmp_path, checksum=checksum).read_bytes() == OTHER
    assert web.asked("/f.bin")[1:] == [None]


def test_bytes_of_one_source_are_gone_on_with_at_another(web, tmp_path):
    web.faults["/f.bin"] = ["half"]
    with pytest.raises(UnreachableError):
        get(web, tmp_path, patience=Patience(tries=1))
    web.files["/mirror/f.bin"] = DATA
    web.tags["/mirror/f.bin"] = '"of its own"'
    path = fetch(f"{web.url}/mirror/f.bin", tmp_path / "f.bin", size=len(DATA), checksum=MD5)
    assert path.read_bytes() == DATA
    assert first_byte(web.asked("/mirror/f.bin")[0]) > 480_000
    assert web.asked("/mirror/f.bin", "If-Range") == [None]


def test_a_file_whose_end_nobody_knows_is_refused(web, tmp_path):
    web.faults["/f.bin"] = [(200, {"Content-Length": "x"})]
    with pytest.raises((RefusedError, UnreachableError)):
        get(web, tmp_path, checksum=None, size=None, patience=Patience(tries=1, read=0.3))
    assert names(tmp_path) == []


def test_an_empty_file(web, tmp_path):
    web.files["/f.bin"] = b""
    assert get(web, tmp_path, size=None, checksum=None).read_bytes() == b""


def test_all_bytes_had_come_before_the_stop(web, tmp_path):
    url = f"{web.url}/f.bin"
    with partial(tmp_path / "f.bin", Wanted(url, None, MD5)) as part:
        part.begin('"1000000"', "", None)
        part.file.write(DATA)
    assert get(web, tmp_path, size=None).read_bytes() == DATA
    assert web.asked("/f.bin") == ["bytes=1000000-"]


def test_two_at_once(web, tmp_path):
    wanted = Wanted(f"{web.url}/f.bin", len(DATA), MD5)
    with partial(tmp_path / "f.bin", wanted), pytest.raises(BusyError, match="another process"):
        get(web, tmp_path)
    assert get(web, tmp_path).read_bytes() == DATA


def test_a_full_disk_is_seen_first(web, tmp_path, monkeypatch):
    from shutil import _ntuple_diskusage

    monkeypatch.setattr("shutil.disk_usage", lambda _: _ntuple_diskusage(0, 0, 999_999))
    with pytest.raises(NoSpaceError, match="1000000 bytes to come, 999999 free"):
        get(web, tmp_path)
    assert names(tmp_path) == []


def test_killed_and_gone_on(web, tmp_path):
    web.faults["/f.bin"] = ["stall"]
    call = f"from satjepa.region.fetch import fetch; fetch({web.url + '/f.bin'!r}, 'f.bin')"
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    child = subprocess.Popen([sys.executable, "-c", call], cwd=tmp_path, env=environment)
    assert web.stalled.wait(30)
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size > 250_000 for path in tmp_path.glob(".*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "f.bin").exists()
    assert get(web, tmp_path, size=None, checksum=None).read_bytes() == DATA
    start = first_byte(web.asked("/f.bin")[1])
    assert 250_000 < start <= 500_000 and names(tmp_path) == ["f.bin"]


def test_json_is_asked_for_again_until_it_is_json(web, slept):
    web.files["/a"] = b'{"files": [1, 2]}'
    web.faults["/a"] = [502, "half", (200, {})]
    assert fetch_json(f"{web.url}/a", patience=QUICK) == {"files": [1, 2]}
    web.faults["/a"] = [(200, {})] * 9
    with pytest.raises(UnreachableError, match="no JSON"):
        fetch_json(f"{web.url}/a", patience=QUICK)


def test_a_cached_file_is_fetched_again_when_there_is_another(web, tmp_path, slept):
    def index():
        return cached(f"{web.url}/f.bin", tmp_path, QUICK, said.append).read_bytes()

    said = []
    assert index() == index() == DATA and len(web.asked("/f.bin")) == 1
    web.files["/f.bin"] = OTHER[:-1]
    assert index() == OTHER[:-1] and said == []
    web.files.clear()
    assert index() == OTHER[:-1] and "the one fetched before is used" in said[0]
