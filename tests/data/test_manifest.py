"""One changed byte is found and its file named (promise P1)."""

import hashlib

import pytest

from satjepa.data.manifest import ManifestError, verify_manifest, write_manifest


def test_manifest_names_the_bad_file(good) -> None:
    write_manifest(good)
    assert verify_manifest(good) == 6
    bad = good / "Alpha" / "gee_embeddings_Alpha_2019_10km.tif"
    data = bytearray(bad.read_bytes())
    data[-1] ^= 1
    bad.write_bytes(data)
    (good / "Alpha" / "s2_rgb_Alpha_2018_10km.tif").unlink()
    (good / "Alpha" / "new.tif").write_bytes(b"new")
    with pytest.raises(ManifestError) as caught:
        verify_manifest(good)
    assert {name: what.split()[0] for name, what in caught.value.bad.items()} == {
        "Alpha/s2_rgb_Alpha_2018_10km.tif": "missing",
        "Alpha/new.tif": "not",
        "Alpha/gee_embeddings_Alpha_2019_10km.tif": "sha256",
    }
    assert "gee_embeddings_Alpha_2019" in str(caught.value)


def test_manifest_has_the_format_of_sha256sum(good) -> None:
    lines = write_manifest(good).read_text().splitlines()
    assert len(lines) == 6 and lines == sorted(lines, key=lambda line: line[64:])
    digest = hashlib.sha256(
        (good / "Alpha" / "gee_embeddings_Alpha_2018_10km.tif").read_bytes()
    ).hexdigest()
    assert lines[0] == f"{digest}  Alpha/gee_embeddings_Alpha_2018_10km.tif"
