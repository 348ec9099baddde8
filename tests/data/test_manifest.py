"""One changed byte is found and its file named (promise P1)."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from satjepa.data.manifest import NAME, ManifestError, sha256, verify_manifest, write_manifest


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


NAMES = ["Alpha/plain.tif", "Alpha/two  blanks.tif", "Alpha/new\nline.tif", "Alpha/back\\slash.tif"]
NAMES += ["Alpha/carriage\rreturn", "Alpha/*star", "São Tomé/b (1) = 2.tif", " blank first"]


@pytest.fixture
def odd(tmp_path):
    """A folder of files with names that are hard to list."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def changed(folder: Path, name: str) -> dict[str, str]:
    """What is bad once a file has been changed; it is changed back."""
    kept = (folder / name).read_bytes()
    (folder / name).write_bytes(b"other")
    with pytest.raises(ManifestError) as caught:
        verify_manifest(folder)
    (folder / name).write_bytes(kept)
    return caught.value.bad


@pytest.mark.parametrize("options", [["-b"], ["-t"], ["--tag"], ["--tag", "-b"]])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("dot", ["", "./"])
def test_every_dialect_of_sha256sum_is_read(odd, options, ending, dot):
    names = [dot + name for name in NAMES]
    listing = subprocess.run(
        ["sha256sum", *options, "--", *names], cwd=odd, capture_output=True, check=True
    ).stdout
    (odd / NAME).write_bytes(listing.replace(b"\n", ending.encode()))
    assert verify_manifest(odd) == len(NAMES)
    for name in NAMES:
        assert list(changed(odd, name)) == [name]


def test_other_dialects_that_sha256sum_reads(odd):
    digests = {name: sha256(odd / name) for name in NAMES}
    for lines in (
        [f"SHA256({name})= {digests[name]}" for name in NAMES],  # openssl
        [f"{digests[name]} {name}" for name in NAMES[:-1]]  # BSD, reversed
        + [f"{digests[NAMES[-1]]}  {NAMES[-1]}"],
        [f"{digests[name].upper()}  {name}" for name in NAMES],
        [f"  {digests[name]} *{name}" for name in NAMES],
        ["# a comment", "", *(f"{digests[name]}  {odd / name}" for name in NAMES)],
    ):
        text = [line for line in lines if "\n" not in line]
        (odd / NAME).write_bytes("\n".join(text).encode())
        with pytest.raises(ManifestError) as caught:
            verify_manifest(odd)
        assert caught.value.bad == {"Alpha/new\nline.tif": "not in the manifest"}


def test_what_is_written_sha256sum_reads(odd):
    write_manifest(odd)
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", NAME], cwd=odd, capture_output=True, check=False
    )
    assert done.returncode == 0 and done.stdout.count(b"OK") == len(NAMES)
    assert verify_manifest(odd) == len(NAMES)


def test_a_line_that_lists_nothing_is_named(odd):
    write_manifest(odd)
    with (odd / NAME).open("a") as file:
        file.write("d41d8cd98f00b204e9800998ecf8427e  Alpha/plain.tif\n")  # an MD5
    with pytest.raises(ManifestError, match=r"MANIFEST.sha256, line 9: no line of sha256sum: 'd41"):
        verify_manifest(odd)


def test_a_file_listed_twice_must_fit_both_and_a_hidden_one_counts_where_it_is_listed(odd):
    (odd / ".hidden").mkdir()
    (odd / ".hidden/file").write_text("a")
    write_manifest(odd)
    assert verify_manifest(odd) == len(NAMES)
    with (odd / NAME).open("a") as file:
        file.write(f"{sha256(odd / '.hidden/file')}  .hidden/file\n{'0' * 64}  {NAMES[0]}\n")
    with pytest.raises(ManifestError) as caught:
        verify_manifest(odd)
    assert list(caught.value.bad) == [NAMES[0]] and "instead of 000" in str(caught.value)
    assert ".hidden/file" in changed(odd, ".hidden/file")
