"""The published data set from a record and from a mirror that are made up, in whatever form they
have it, into the layout.
"""

import hashlib
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from web_server import serving

from satjepa.region.archives import BrokenArchiveError, UnsafeArchiveError, unpack
from satjepa.region.fetch_errors import NoSpaceError, RefusedError, UnreachableError
from satjepa.region.listing import place_of
from satjepa.region.patience import Patience
from satjepa.region.published import PublishedError, get_published

QUICK = Patience(tries=3, first=0.01, longest=0.02, limit=1, connect=5, read=5)
RASTERS = {
    f"{kind}_{region}_{year}_10km.tif": np.random.default_rng([k, r, year]).bytes(3000)
    for k, kind in enumerate(("s2_rgb", "gee_embeddings"))
    for r, region in enumerate(("Nairobi", "New_York"))
    for year in (2017, 2018)
}
LAID = {f"{'Nairobi' if 'Nairobi' in name else 'New_York'}/{name}" for name in RASTERS}


def zipped(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def tarred(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def of(region):
    return {name: data for name, data in RASTERS.items() if region in name}


def publish(web, files, newer=False):
    """A record of these files."""
    entries = []
    for name, data in files.items():
        web.files[f"/api/records/7/files/{name}/content"] = data
        checksum = "md5:" + hashlib.md5(data).hexdigest()
        entries.append({"key": name, "size": len(data), "checksum": checksum})
        if not newer:
            link = f"{web.url}/api/records/7/files/{name}/content"
            entries[-1]["links"] = {"self": link}
    told = {"id": 7, "files": entries}
    if newer:
        told["files"] = {"entries": {entry.pop("key"): entry for entry in entries}}
    web.files["/api/records/1"] = json.dumps(told).encode()


def mirror(web, files):
    """The same on a hub: small files by git's object id, large ones by SHA-256."""
    tree = []
    for i, (name, data) in enumerate(files.items()):
        web.files[f"/datasets/me/set/resolve/abc/{name}"] = data
        git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        tree.append({"type": "file", "path": name, "size": len(data), "oid": git})
        if i % 2:
            large = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}
            tree[-1]["lfs"] = large
    tree.append({"type": "directory", "path": "Nairobi", "oid": "0" * 40})
    web.files["/api/datasets/me/set"] = json.dumps({"id": "me/set", "sha": "abc"}).encode()
    web.files["/api/datasets/me/set/tree/abc"] = json.dumps(tree).encode()


@pytest.fixture
def web():
    with serving() as web:
        yield web


def get(web, folder, regions=None, source=None, **options):
    said = options.pop("said", [])
    paths = get_published(
        folder, regions, source, said.append, record=f"{web.url}/api/records/1",
        dataset="me/set", endpoint=web.url, patience=QUICK, **options,
    )  # fmt: skip
    for path in paths:
        assert path.read_bytes() == RASTERS[path.name]
    return {path.relative_to(folder).as_posix() for path in paths}


def below(folder):
    """Files that are no notes of ours."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix != ".json"} - {
        ".archives", "Nairobi", "New_York",
    }  # fmt: skip


def fetched(web):
    return [path for method, path, _ in web.seen if "content" in path or "resolve" in path]


FORMS = {
    "files": RASTERS | {"README.md": b"read me"},
    "one zip": {"data.zip": zipped({f"set/{name}": data for name, data in RASTERS.items()})},
    "a zip each": {f"{r}.zip": zipped(of(r) | {"a.txt": b"a"}) for r in ("Nairobi", "New_York")},
    "tar": {"data.tar.gz": tarred({f"./x/{name}": data for name, data in RASTERS.items()})},
    "both": of("Nairobi") | {"rest.zip": zipped(of("New_York")), "code.zip": zipped({"a": b"b"})},
}


@pytest.mark.parametrize("newer", [False, True], ids=["links", "entries"])
@pytest.mark.parametrize("form", FORMS)
def test_any_form_becomes_the_layout_and_is_fetched_once(web, tmp_path, form, newer):
    publish(web, FORMS[form], newer)
    said = []
    assert get(web, tmp_path, said=said) == LAID == below(tmp_path)
    assert f"satjepa data verify {tmp_path}" in said[-1]
    before = len(fetched(web))
    assert get(web, tmp_path) == LAID and len(fetched(web)) == before


@pytest.mark.parametrize("form", FORMS)
def test_one_region_then_the_other(web, tmp_path, form):
    publish(web, FORMS[form])
    nairobi = {name for name in LAID if "Nairobi" in name}
    assert get(web, tmp_path, ["Nairobi"]) == nairobi
    if form in ("files", "a zip each"):
        assert not [path for path in fetched(web) if "New_York" in path]
    get(web, tmp_path, ["New_York"])
    assert len(fetched(web)) == len(set(fetched(web))), "nothing twice"
    assert below(tmp_path) == LAID, "archives are gone once they are unpacked"


@pytest.mark.parametrize("form", FORMS)
def test_a_region_that_is_not_there(web, tmp_path, form):
    publish(web, FORMS[form])
    with pytest.raises(PublishedError, match="no region Narnia in the data set"):
        get(web, tmp_path, ["Narnia"])
    if form == "files":
        assert fetched(web) == []


def test_a_lost_raster_of_an_unpacked_archive_is_fetched_again(web, tmp_path):
    publish(web, FORMS["one zip"])
    get(web, tmp_path)
    (tmp_path / sorted(LAID)[0]).unlink()
    assert get(web, tmp_path) == LAID


def test_the_mirror_is_asked_when_the_record_is_gone(web, tmp_path):
    mirror(web, {f"Nairobi/{name}": data for name, data in of("Nairobi").items()})
    said = []
    assert len(get(web, tmp_path, said=said)) == 4 and "the mirror is asked" in "".join(said)
    with pytest.raises(RefusedError, match="HTTP 404"):
        get(web, tmp_path, source="zenodo")


def test_the_mirror_itself(web, tmp_path):
    files = {f"data/{name}": data for name, data in RASTERS.items()}
    mirror(web, files | {"more.zip": zipped({"a.txt": b""})})
    assert get(web, tmp_path, source="hub") == LAID
    web.files["/datasets/me/set/resolve/abc/more.zip"] = b"x" * 22
    web.files["/datasets/me/set/resolve/abc/data/s2_rgb_Nairobi_2017_10km.tif"] = b"x" * 3000
    (tmp_path / "Nairobi/s2_rgb_Nairobi_2017_10km.tif").unlink()
    with pytest.raises(PublishedError, match=r"git .* instead of"):
        get(web, tmp_path, source="hub")


def test_no_hub(web, tmp_path):
    with pytest.raises(RefusedError, match="the list of me/set was not to be had"):
        get(web, tmp_path, source="hub")


def test_a_record_by_its_address(web, tmp_path):
    publish(web, RASTERS)
    web.files["/other"] = web.files.pop("/api/records/1")
    assert get(web, tmp_path, source=f"{web.url}/other") == LAID


@pytest.mark.parametrize("told", [b"[]", b"{}", b'{"files": []}', b'{"files": [{"size": 1}]}'])
def test_a_record_without_files(web, tmp_path, told):
    web.files["/api/records/1"] = told
    with pytest.raises(RefusedError, match=r"lists no files|cannot be read"):
        get(web, tmp_path, source="zenodo")


def test_a_record_of_other_things(web, tmp_path):
    publish(web, {"paper.pdf": b"x"})
    with pytest.raises(PublishedError, match="neither rasters"):
        get(web, tmp_path)


def test_one_wrong_file_keeps_no_other_away(web, tmp_path):
    publish(web, RASTERS)
    first = next(iter(RASTERS))
    web.files[f"/api/records/7/files/{first}/content"] = b"y" * 3000
    with pytest.raises(PublishedError, match=r"1 files of 8 could not be had(.|\n)*md5"):
        get(web, tmp_path)
    assert below(tmp_path) == {name for name in LAID if first not in name}


def test_a_server_that_goes_away_is_not_asked_for_each_file(web, tmp_path):
    publish(web, RASTERS)
    second = f"/api/records/7/files/{list(RASTERS)[1]}/content"
    web.faults[second] = [502] * 99
    with pytest.raises(UnreachableError, match="the same command goes on"):
        get(web, tmp_path)
    assert len(fetched(web)) == 1 + QUICK.tries
    web.faults.clear()
    assert get(web, tmp_path) == LAID


def test_a_full_disk_is_seen_before_anything_is_fetched(web, tmp_path, monkeypatch):
    from shutil import _ntuple_diskusage

    publish(web, FORMS["both"])
    monkeypatch.setattr("shutil.disk_usage", lambda _: _ntuple_diskusage(0, 0, 30_000))
    with pytest.raises(NoSpaceError, match=r"an estimated 1.5 times as much .* 0.00 GB free"):
        get(web, tmp_path)
    assert fetched(web) == []


def test_names_of_scenes():
    def path(name):
        place = place_of(name)
        return place and place.path

    assert path("x/s2_rgb_New_York_2017_10km.tif") == "New_York/s2_rgb_New_York_2017_10km.tif"
    assert path("embedding_A_2018.TIFF") == "A/gee_embeddings_A_2018_10km.tif"
    assert path("Oslo/s2_rgb_2019.tif") == "Oslo/s2_rgb_Oslo_2019_10km.tif"
    for name in ("s2_rgb_.._2017.tif", "._s2_rgb_A_2017.tif", "s2_rgb_2017.tif", "s2_rgb_A_17.tif"):
        assert path(name) is None, name
    assert path("s2_rgb_/etc/s2_rgb_A\\_2017.tif") is None


# ---- archives ----


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["../a", "x/../../a", "/a", "\\a", "..\\a", "C:\\a", "c:a"])
def test_a_name_that_leads_out_is_refused_before_anything_is_written(tmp_path, name, pack):
    (tmp_path / "a.zip").write_bytes(pack({"good": b"1", name: b"2"}))
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsafeArchiveError, match="leads out of the folder"):
        unpack(tmp_path / "a.zip", tmp_path / "out", str)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "out"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_link_is_refused(tmp_path, kind):
    path = tmp_path / "a"
    if kind == "zip":
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(info, "/etc/passwd")
    else:
        info = tarfile.TarInfo("link")
        info.type = tarfile.SYMTYPE
        info.linkname = "/etc/passwd"
        with tarfile.open(path, "w") as archive:
            archive.addfile(info)
    with pytest.raises(UnsafeArchiveError, match="is a link"):
        unpack(path, tmp_path, str)


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_damaged_archive_leaves_no_half_of_a_file(tmp_path, pack):
    noise = np.random.default_rng(0).bytes(20_000)
    data = bytearray(pack({"a": noise[:10_000], "b": noise}))
    data[20_000] ^= 255
    data[25_000:25_040] = bytes(40)
    (tmp_path / "x").write_bytes(data)
    (tmp_path / "out").mkdir()
    with pytest.raises(BrokenArchiveError, match="cannot be read to its end"):
        unpack(tmp_path / "x", tmp_path / "out", str)
    there = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert there in ({}, {"a": noise[:10_000]})


def test_what_is_unpacked_already_is_not_written_again(tmp_path):
    (tmp_path / "x").write_bytes(zipped({"a": b"right", "b": b"right", "c/d": b"right"}))
    (tmp_path / "a").write_bytes(b"right")
    (tmp_path / "b").write_bytes(b"wrong")
    before = (tmp_path / "a").stat().st_ino
    assert unpack(tmp_path / "x", tmp_path, str) == {"a": 5, "b": 5, "c/d": 5}
    assert (tmp_path / "a").stat().st_ino == before
    assert {(tmp_path / n).read_bytes() for n in ("a", "b", "c/d")} == {b"right"}


def test_no_room_to_unpack(tmp_path, monkeypatch):
    from shutil import _ntuple_diskusage

    (tmp_path / "x").write_bytes(zipped({"a": b"right"}))
    monkeypatch.setattr("shutil.disk_usage", lambda _: _ntuple_diskusage(0, 0, 4))
    with pytest.raises(NoSpaceError, match="5 bytes to unpack, 4 free"):
        unpack(tmp_path / "x", tmp_path, str)
