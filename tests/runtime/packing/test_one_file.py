"""An .alm file: the same bytes from the same folder, run where they lie, refused if one changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

import alm
from alm import backends
from alm.artifacts import manifest as manifests
from alm.artifacts.embedding_table import open_table
from alm.cli import alm_commands, exit_status, run_command
from alm.errors import AlmError, BadArtifacts, BadOption, MissingFile
from alm.host import archive, ziplayout
from alm.host.ziplayout import Member
from alm.packing import check, pack, signing, unpack
from tests import ROOT

LAMP = ROOT / "demo" / "lamp.wav"
PEM, RAW = serialization.Encoding.PEM, serialization.NoEncryption()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and its public key, as openssl writes them."""
    folder, key = tmp_path_factory.mktemp("keys"), ed25519.Ed25519PrivateKey.generate()
    (folder / "key.pem").write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, RAW))
    public = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub").write_bytes(public)
    return folder / "key.pem", folder / "key.pub"


@pytest.fixture(scope="module")
def packed(demo: Path, keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as one file, signed. Never to be changed."""
    file = tmp_path_factory.mktemp("packed") / "demo.alm"
    pack.pack(demo, file, keys[0])
    return file


def sentence(work: Callable[[], object], kind: type[AlmError] = BadArtifacts) -> str:
    with pytest.raises(kind) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what it is


def test_the_same_folder_and_key_give_the_same_bytes(
    demo: Path, packed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    again = shutil.copytree(demo, tmp_path / "another place")
    made = pack.pack(again, tmp_path / "again.alm", keys[0])
    assert (tmp_path / "again.alm").read_bytes() == packed.read_bytes()
    assert made.bytes == packed.stat().st_size and made.members == len(archive.names(packed))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_other_peoples_programs_read_it(packed: Path, demo: Path) -> None:
    with zipfile.ZipFile(packed) as file:
        assert file.testzip() is None
        names = file.namelist()
        assert names[0] == "manifest.json" and names[-1] == "signature.json"
        for entry in manifests.load(demo).files():
            assert file.read(entry.name) == (demo / entry.name).read_bytes()
        infos = file.infolist()
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    assert all(m.start % ziplayout.ALIGNED == 0 for m in archive.layout(packed).members)


def test_it_says_what_it_was_made_of(packed: Path) -> None:
    with zipfile.ZipFile(packed) as file:
        sbom, licences = json.loads(file.read("sbom.cdx.json")), file.read("LICENCES.md").decode()
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["name"]: part for part in sbom["metadata"]["component"]["components"]}
    assert set(parts) == {"mel", "whisper", "fbank", "beats", "qformer", "decoder", "embed"}
    assert len(parts["decoder"]["components"]) == 2
    tools = {tool["name"]: tool for tool in sbom["metadata"]["tools"]["components"]}
    assert tools["torch"]["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]
    assert tools["torch"]["purl"].startswith("pkg:pypi/torch@2.")
    assert "golden/lamp.wav: Apache-2.0" in licences and "- torch 2." in licences


def test_it_answers_as_the_folder_does_and_unpacks_nothing(
    packed: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    words = ["--engine", str(packed), str(LAMP), "transcribe"]
    assert exit_status.run(run_command.running, words) == 0
    assert capsys.readouterr().out == "turn on the lamp in the kitchen\n"
    assert list(place.iterdir()) == []
    assert exit_status.run(alm_commands.app, ["inspect", str(packed)]) == 0
    assert "decoder.onnx.data" in capsys.readouterr().out
    assert exit_status.run(alm_commands.app, ["lint", str(packed), "--target", "cpu"]) == 0
    assert exit_status.run(alm_commands.app, ["plan", str(packed), "--device", "agx-thor"]) == 0


def test_a_file_may_be_renamed_and_lie_anywhere(packed: Path, tmp_path: Path) -> None:
    other = tmp_path / "a b" / "ünder.bin"
    other.parent.mkdir()
    shutil.copyfile(packed, other)
    model = alm.load(other, provider="cpu")
    assert model.generate(LAMP, "transcribe").text == "turn on the lamp in the kitchen"


def test_rows_of_the_table_are_those_of_the_folder(packed: Path, demo: Path) -> None:
    files, ids = manifests.load(demo).named("embed").files, np.array([0, 5, 639])
    assert (open_table(packed, files)(ids) == open_table(demo, files)(ids)).all()


def test_weights_lie_in_the_file_itself(packed: Path) -> None:
    with archive.section(packed, "decoder.onnx.data") as stream:
        weights = stream.read()
    start = archive.find(packed, "decoder.onnx.data").member.start
    assert packed.read_bytes()[start : start + len(weights)] == weights
    decoder = manifests.load(packed).named("decoder")
    graph, place = backends.ort._inside(decoder, packed)  # pyright: ignore
    assert place == str(packed.parent)
    assert packed.name.encode() in graph and b"decoder.onnx.data" not in graph


def test_it_becomes_a_folder_again(packed: Path, demo: Path, tmp_path: Path) -> None:
    words = ["unpack", str(packed), str(tmp_path / "out")]
    assert exit_status.run(alm_commands.app, words) == 0
    for entry in manifests.load(demo).files():
        assert (tmp_path / "out" / entry.name).read_bytes() == (demo / entry.name).read_bytes()
    assert manifests.load(tmp_path / "out") == manifests.load(demo)
    said = sentence(lambda: unpack.unpack(packed, tmp_path / "out"))
    assert "is there already" in said


# --- one byte


def test_every_changed_byte_is_refused_and_its_member_named(
    packed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    layout, whole = archive.layout(packed), packed.read_bytes()
    bad = tmp_path / "bad.alm"
    for member, header in zip(layout.members, layout.headers, strict=True):
        for at in (member.start, member.start + member.bytes - 1, member.start - len(header) // 2):
            changed = bytearray(whole)
            changed[at] ^= 1
            bad.write_bytes(changed)
            said = sentence(lambda: check.check(bad, keys[1]))
            assert member.name in said or (member.name == "manifest.json" and "bad.alm" in said)
    for at in (layout.tail_start, layout.tail_start + 20, len(whole) - 1, len(whole) - 10):
        changed = bytearray(whole)
        changed[at] ^= 1
        bad.write_bytes(changed)
        assert "no .alm file that alm pack wrote" in sentence(lambda: check.check(bad, keys[1]))


def test_a_changed_weight_is_refused_by_a_run(packed: Path, tmp_path: Path) -> None:
    bad, changed = tmp_path / "bad.alm", bytearray(packed.read_bytes())
    member = archive.find(packed, "decoder.onnx.data").member
    changed[member.start + 1000] ^= 1
    bad.write_bytes(changed)
    assert "'decoder.onnx.data'" in sentence(lambda: alm.load(bad, provider="cpu"))


@pytest.mark.parametrize("cut", [1, 22, 5000, 10**6])
def test_a_file_that_was_cut_or_grew_is_refused(packed: Path, cut: int, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    for data in (whole[:-cut], whole + b"\0" * cut, b"\0" * cut + whole):
        (tmp_path / "bad.alm").write_bytes(data)
        said = sentence(lambda: alm.load(tmp_path / "bad.alm"))
        assert "no .alm file that alm pack wrote" in said


# --- traps of zip files


def zipped(path: Path, write: Callable[[zipfile.ZipFile], object]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        write(file)
    return path


def link(file: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("manifest.json")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    file.writestr(info, "/etc/passwd")


def twice(file: zipfile.ZipFile) -> None:
    file.writestr("manifest.json", "{}")
    with pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("manifest.json", "[]")


def bomb(file: zipfile.ZipFile) -> None:
    file.writestr("manifest.json", b"0" * 10**7, zipfile.ZIP_DEFLATED)


def comment(file: zipfile.ZipFile) -> None:
    file.writestr("manifest.json", "{}")
    file.comment = b"hello"


def outside(file: zipfile.ZipFile) -> None:
    file.writestr("../manifest.json", "{}")


@pytest.mark.parametrize("trap", [link, twice, bomb, comment, outside])
def test_what_zip_files_may_do_and_ours_do_not_is_refused(
    trap: Callable[[zipfile.ZipFile], None], tmp_path: Path
) -> None:
    file = zipped(tmp_path / "trap.alm", trap)
    said = sentence(lambda: alm.load(file))
    assert "alm pack wrote" in said or "is refused" in said or "two members of one name" in said


def test_sizes_that_lie_and_members_that_overlap_are_refused(tmp_path: Path) -> None:
    data = b'{"a": 1}'
    layout = ziplayout.compose([Member("manifest.json", len(data), zlib.crc32(data))])
    good = layout.headers[0] + data + layout.tail
    file = tmp_path / "lies.alm"
    file.write_bytes(good)
    assert archive.names(file) == ["manifest.json"]
    central = layout.tail_start
    for at, number in ((central + 20, 4), (central + 24, 2**31), (central + 42, 1)):
        bad = bytearray(good)
        bad[at : at + 4] = struct.pack("<I", number)
        file.write_bytes(bad)
        assert "no .alm file that alm pack wrote" in sentence(lambda: archive.names(file))
    bad = bytearray(good)
    bad[-12:-8] = struct.pack("<I", 2**30)  # the directory's length
    file.write_bytes(bad)
    assert "it lists 1 members in" in sentence(lambda: archive.names(file))
    for name in ("/etc/passwd", "a/../b", "", "C:x"):
        assert "is refused" in sentence(lambda name=name: ziplayout.compose([Member(name, 1, 1)]))


def test_files_beyond_4_gib_are_zip64(tmp_path: Path) -> None:
    """Sparse: it takes no room."""
    small, large = b"{}", 2**32 + 5
    members = [Member("large.bin", large, 0), Member("small", 2, zlib.crc32(small))]
    layout = ziplayout.compose(members)
    with (file := tmp_path / "large.alm").open("wb") as stream:
        stream.write(layout.headers[0])
        stream.seek(layout.members[1].start - len(layout.headers[1]))
        stream.write(layout.headers[1] + small + layout.tail)
    read = archive.layout(file)
    assert [(m.name, m.bytes) for m in read.members] == [("large.bin", large), ("small", 2)]
    with archive.section(file, "small") as stream:
        assert stream.read() == small
    with zipfile.ZipFile(file) as theirs:
        assert theirs.read("small") == small
        assert theirs.getinfo("large.bin").file_size == large


# --- who signed it


def test_a_signature_is_held_against_a_key(
    packed: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["verify", str(packed), "--key", str(keys[1])]
    assert exit_status.run(alm_commands.app, words) == 0
    name = signing.fingerprint(signing.public(keys[1]))
    assert capsys.readouterr().out.strip().endswith(f"as they were packed, signed by {name}")
    assert exit_status.run(alm_commands.app, ["verify", str(packed)]) == 0
    assert "held against no key" in capsys.readouterr().out
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    public = other.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "other.pub").write_bytes(public)
    assert "which is another" in sentence(lambda: check.check(packed, tmp_path / "other.pub"))


def test_a_list_that_was_made_anew_is_not_signed(
    demo: Path, packed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """Somebody unpacks, changes, and packs again with the old signature."""
    bare = tmp_path / "bare.alm"
    pack.pack(demo, bare, None)
    assert "is not signed" in sentence(lambda: check.check(bare, keys[1]))
    with zipfile.ZipFile(packed) as theirs, zipfile.ZipFile(bare) as ours:
        pieces = [(name, ours.read(name)) for name in ours.namelist()]
        pieces.append(("signature.json", theirs.read("signature.json")))
    changed = [(n, d.replace(b'"salmonn"', b'"salmonm"')) for n, d in pieces]
    listed = json.loads(dict(changed)["contents.json"])
    entry = next(e for e in listed["members"] if e["name"] == "manifest.json")
    entry["sha256"] = hashlib.sha256(dict(changed)["manifest.json"]).hexdigest()
    changed = [
        (n, json.dumps(listed, indent=1).encode() if n == "contents.json" else d)
        for n, d in changed
    ]
    layout = ziplayout.compose([Member(n, len(d), zlib.crc32(d)) for n, d in changed])
    forged = tmp_path / "forged.alm"
    data = (header + d for header, (_, d) in zip(layout.headers, changed, strict=True))
    forged.write_bytes(b"".join(data) + layout.tail)
    assert check.check(forged, None).members == len(changed)
    assert "'contents.json' was changed" in sentence(lambda: check.check(forged, keys[1]))


def test_keys_that_are_none_are_refused(
    demo: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, key = tmp_path / "x.alm", tmp_path / "key.pem"
    said = sentence(lambda: pack.pack(demo, out, tmp_path / "none.pem"), MissingFile)
    assert "openssl genpkey -algorithm ed25519" in said
    key.write_text("no key")
    assert "no private key in PEM" in sentence(lambda: pack.pack(demo, out, key), BadOption)
    assert "no private key in PEM" in sentence(lambda: pack.pack(demo, out, keys[1]), BadOption)
    other = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(other.private_bytes(PEM, serialization.PrivateFormat.PKCS8, RAW))
    assert "is no key of Ed25519" in sentence(lambda: pack.pack(demo, out, key), BadOption)
    secret = serialization.BestAvailableEncryption(b"secret")
    private = ed25519.Ed25519PrivateKey.generate()
    key.write_bytes(private.private_bytes(PEM, serialization.PrivateFormat.PKCS8, secret))
    assert "has a password" in sentence(lambda: pack.pack(demo, out, key), BadOption)
    assert not out.exists()
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)  # not installed
    said = sentence(lambda: pack.pack(demo, out, keys[0]), alm.MissingPackage)
    assert "alm-edge[sign]" in said


# --- what wants a folder


@pytest.mark.parametrize(
    "words",
    [
        ["build", "{}", "--dry-run"],
        ["push", "{}", "org/name", "--dry-run"],
        ["pack", "{}", "again.alm"],
        ["pack", "{}", "--triton", "out"],
        ["inspect", "{}", "--netron", "mel"],
        ["bench", "{}", "--provider", "openvino", "--repeats", "1", "--seconds", "1"],
    ],
)
def test_commands_that_want_a_folder_say_how_to_make_one(
    words: list[str],
    packed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    status = exit_status.run(alm_commands.app, [word.format(packed) for word in words])
    said = capsys.readouterr().err
    assert status in (1, 2) and f"alm unpack {packed}" in said, said
    assert list(tmp_path.iterdir()) == []


def test_damage_in_the_folder_is_found_before_a_file_is_written(demo: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(demo, tmp_path / "copy"))
    data = bytearray((copy / "mel.onnx").read_bytes())
    data[50] ^= 1
    (copy / "mel.onnx").write_bytes(data)
    assert "'mel.onnx'" in sentence(lambda: pack.pack(copy, tmp_path / "x.alm", None))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy"]
    assert "ends in .alm" in sentence(lambda: pack.pack(demo, tmp_path / "x.zip", None), BadOption)
