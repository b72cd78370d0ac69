"""A model of the hub into a folder: what its manifest lists, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alm.artifacts.manifest import MOST_BYTES, NAME
from alm.artifacts.manifest import load as load_manifest
from tests.runtime.hub import models
from tests.runtime.hub.commands import Commands
from tests.runtime.hub.standin import Hub

DATA = "sub/decoder.onnx.data"


def test_the_listed_files_come_and_no_others(hub: Hub, commands: Commands, tmp_path: Path) -> None:
    held = models.model()
    hub.repo("org/plain", held | {"README.md": b"# hi", "secret.bin": bytes(30_000)})
    done = commands("alm", "pull", "org/plain", tmp_path / "new" / "model")
    assert (done.status, done.out) == (0, f"{tmp_path / 'new' / 'model'}\n"), done
    assert models.read(tmp_path / "new" / "model") == held
    assert "4 files, 57,012 bytes, from " in done.err and f"{DATA}: 50,000 bytes" in done.err
    gets = [line for line in hub.asked if line.startswith("GET")]
    assert NAME in gets[0]
    assert not hub.fetched("README.md") and not hub.fetched("secret.bin")


def test_a_model_in_the_cache_is_fetched_once(hub: Hub, commands: Commands, home: Path) -> None:
    hub.repo("org/once", models.model())
    first = commands("alm", "pull", "hub:org/once")
    place = Path(first.out.strip())
    assert place.is_relative_to(home / "hf" / "assets" / "alm-edge" / "org--once")
    assert models.read(place) == models.model()
    hub.asked.clear()
    again = commands("alm", "inspect", "hub:org/once")
    assert again.status == 0 or "sub/decoder.onnx" in again.err  # its graphs are chance bytes
    assert [line.split()[0] for line in hub.asked] == ["HEAD"]


def test_a_commit_is_taken_as_it_is_and_asked_for_once(
    hub: Hub, commands: Commands, tmp_path: Path
) -> None:
    old, new = models.model(1), models.model(2)
    repo = hub.repo("org/moved", old)
    first = repo.refs["main"]
    repo.commit(new)
    repo.refs["v1/final"] = first
    for revision, held in ((first, old), ("v1/final", old), ("main", new)):
        place = tmp_path / revision.replace("/", "-")
        assert commands("alm", "pull", f"org/moved@{revision}", place).status == 0
        assert models.read(place) == held
    assert commands("alm", "pull", "org/moved", tmp_path / "plain").status == 0
    assert models.read(tmp_path / "plain") == new
    assert commands("alm", "pull", f"org/moved@{first}").status == 0
    hub.asked.clear()
    place = Path(commands("alm", "pull", f"org/moved@{first}").out.strip())
    assert models.read(place) == old and hub.asked == []


def test_a_commit_of_the_card_alone_fetches_nothing(hub: Hub, commands: Commands) -> None:
    repo = hub.repo("org/card", models.model() | {"README.md": b"# a"})
    first = commands("alm", "pull", "org/card")
    repo.commit(models.model() | {"README.md": b"# b"})
    hub.asked.clear()
    second = commands("alm", "pull", "org/card")
    assert (second.status, second.out) == (0, first.out)
    assert hub.fetched(NAME) and not hub.fetched("ear.onnx") and not hub.fetched(DATA)


def test_wrong_bytes_are_named_and_not_kept(hub: Hub, commands: Commands, tmp_path: Path) -> None:
    held = models.model()
    hub.repo("org/wrong", held)
    hub.lies[DATA] = bytes(len(held[DATA]))
    place = tmp_path / "model"
    sentence = commands("alm", "pull", "org/wrong", place).sentence
    assert f"'{DATA}' of org/wrong does not have the sha256" in sentence and "not kept" in sentence
    assert NAME not in models.read(place)
    assert bytes(len(held[DATA])) not in models.read(place).values()
    hub.lies.clear()
    hub.asked.clear()
    assert commands("alm", "pull", "org/wrong", place).status == 0
    assert models.read(place) == held
    assert not hub.fetched("ear.onnx")  # came whole the first time


def test_more_bytes_than_were_listed_are_refused(
    hub: Hub, commands: Commands, tmp_path: Path
) -> None:
    held = models.model()
    hub.repo("org/long", held)
    hub.lies["ear.onnx"] = held["ear.onnx"] + b"!"
    sentence = commands("alm", "pull", "org/long", tmp_path / "model").sentence
    assert "'ear.onnx' of org/long is longer than 3000 bytes" in sentence
    assert models.read(tmp_path / "model") == {}


def test_fewer_bytes_are_no_file_and_the_same_command_goes_on(
    hub: Hub, commands: Commands, tmp_path: Path
) -> None:
    held = models.model()
    hub.repo("org/short", held)
    hub.lies["ear.onnx"] = held["ear.onnx"][:1000]
    assert (
        "the same command goes on" in commands("alm", "pull", "org/short", tmp_path / "a").sentence
    )
    hub.lies.clear()
    assert commands("alm", "pull", "org/short", tmp_path / "a").status == 0
    assert models.read(tmp_path / "a") == held
    assert hub.fetched("ear.onnx")[-1].endswith("bytes=1000-")


@pytest.mark.parametrize(
    ("case", "fields", "said"),
    [
        ("absent", {"name": "gone.onnx"}, "org/absent does not hold 'gone.onnx'"),
        ("size", {"bytes": 7}, "has 50000 bytes and the manifest says 7; nothing was fetched"),
        ("sha", {"sha256": "a" * 64}, "and the manifest says aaaa"),
    ],
)
def test_what_the_hub_says_itself_is_seen_before_a_byte_comes(
    hub: Hub, commands: Commands, tmp_path: Path, case: str, fields: dict[str, str], said: str
) -> None:
    hub.repo(f"org/{case}", models.spoilt(models.model(), 1, **fields))
    assert said in commands("alm", "pull", f"org/{case}", tmp_path / "model").sentence
    assert not hub.fetched("ear.onnx") and not hub.fetched(DATA)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "../x"}, "a path must not go up with '..'"),
        ({"name": "/etc/passwd"}, "a path must not be absolute"),
        ({"name": "C:x"}, "a name must not hold a colon"),
        ({"name": NAME}, f"it lists '{NAME}'"),
        ({"name": ".pull/x"}, "it lists '.pull/x'"),
        ({"sha256": "../../x"}, "'ear.onnx' has no sha256 there"),
        ({"name": "tokenizer.json"}, "two files are 'tokenizer.json'"),
    ],
)
def test_a_manifest_with_a_bad_name_is_refused(
    hub: Hub, commands: Commands, tmp_path: Path, fields: dict[str, str], said: str
) -> None:
    name = f"org/name{sum(map(ord, said + fields.get('name', '')))}"
    hub.repo(name, models.spoilt(models.model(), 0, **fields))
    sentence = commands("alm", "pull", name, tmp_path / "model").sentence
    assert said in sentence and f"the manifest of {name} is refused" in sentence
    assert not (tmp_path / "model").exists() or models.read(tmp_path / "model") == {}


def test_a_manifest_that_is_too_large_is_not_read(
    hub: Hub, commands: Commands, tmp_path: Path
) -> None:
    hub.repo("org/huge", {NAME: bytes(MOST_BYTES + 1)})
    sentence = commands("alm", "pull", "org/huge", tmp_path / "a").sentence
    assert f"{NAME} of org/huge has {MOST_BYTES + 1} bytes, too many for a manifest" in sentence
    assert not hub.fetched(NAME)
    hub.repo("org/liar", models.model())
    hub.lies[NAME] = bytes(MOST_BYTES + 1)
    sentence = commands("alm", "pull", "org/liar", tmp_path / "b").sentence
    assert f"'{NAME}' of org/liar is longer than {MOST_BYTES} bytes" in sentence


@pytest.mark.parametrize(
    ("case", "content", "said"),
    [
        ("text", b"hello", "is not JSON"),
        ("other", b'{"format": "mp3"}', "is no manifest of alm-edge"),
        ("newer", b'{"format": "alm-edge", "format_version": 99}', "pip install -U alm-edge"),
    ],
)
def test_what_is_no_manifest_is_refused_by_the_models_name(
    hub: Hub, commands: Commands, case: str, content: bytes, said: str
) -> None:
    hub.repo(f"org/{case}", {NAME: content})
    sentence = commands("alm", "pull", f"org/{case}").sentence
    assert said in sentence and f"{NAME} of org/{case}" in sentence and "assets" not in sentence


def test_engines_are_not_fetched(hub: Hub, commands: Commands, tmp_path: Path) -> None:
    held, engine = models.files(), b"code"
    listing = models.manifest(held).with_engines([models.engine(engine)])
    hub.repo("org/engine", held | {NAME: models.as_json(listing), "ear.engine": engine})
    assert commands("alm", "pull", "org/engine", tmp_path / "model").status == 0
    assert not hub.fetched("ear.engine")
    assert models.read(tmp_path / "model").keys() == {*held, NAME}
    assert load_manifest(tmp_path / "model").engines == ()


def test_a_second_pull_updates_a_folder_and_leaves_what_is_its_owners(
    hub: Hub, commands: Commands, tmp_path: Path
) -> None:
    old = models.files(3)
    repo = hub.repo("org/update", models.model(3))
    place = tmp_path / "model"
    assert commands("alm", "pull", "org/update", place).status == 0
    (place / "ear.engine").write_bytes(b"code")
    built = load_manifest(place).with_engines([models.engine(b"code")])
    built.save(place)
    assert commands("alm", "pull", "org/update", place).status == 0
    assert load_manifest(place) == built  # the same model: what was built of it stays
    new = models.files(4) | {"ear.onnx": old["ear.onnx"]}
    repo.commit(new | {NAME: models.as_json(models.manifest(new))})
    hub.asked.clear()
    assert commands("alm", "pull", "org/update", place).status == 0
    assert models.read(place).items() >= new.items() and load_manifest(place).engines == ()
    assert (place / "ear.engine").is_file() and not hub.fetched("ear.onnx")


def test_a_folder_of_other_files_is_left_alone(
    hub: Hub, commands: Commands, tmp_path: Path
) -> None:
    hub.repo("org/left", models.model())
    (tmp_path / "thesis.tex").write_text("mine")
    assert "holds other files" in commands("alm", "pull", "org/left", tmp_path).sentence
    assert "is no folder" in commands("alm", "pull", "org/left", tmp_path / "thesis.tex").sentence
    assert models.read(tmp_path) == {"thesis.tex": b"mine"} and hub.asked == []


def test_nothing_is_written_through_a_link(hub: Hub, commands: Commands, tmp_path: Path) -> None:
    hub.repo("org/links", models.model())
    place, other = tmp_path / "model", tmp_path / "other"
    other.mkdir()
    (place / ".pull").mkdir(parents=True)
    (place / "sub").symlink_to(other)
    assert "it is a link" in commands("alm", "pull", "org/links", place).sentence
    assert models.read(other) == {}


def test_a_file_that_was_changed_in_the_cache_is_fetched_again(
    hub: Hub, commands: Commands
) -> None:
    hub.repo("org/mended", models.model())
    place = Path(commands("alm", "pull", "org/mended").out.strip())
    (place / "ear.onnx").write_bytes(bytes(3_000))
    hub.asked.clear()
    assert commands("alm", "pull", "org/mended").status == 0
    assert models.read(place) == models.model() and not hub.fetched(DATA)


def test_plan_takes_the_manifest_alone(hub: Hub, commands: Commands) -> None:
    hub.repo("org/plan", models.model())
    words = ("alm", "plan", "hub:org/plan", "--device", "orin-nano-8gb", "--json")
    done = commands(*words)
    assert hub.fetched(NAME) and not hub.fetched("ear.onnx")
    if done.status == 0:
        assert json.loads(done.out)["format"] == "alm-plan"
    else:  # a model of chance bytes cannot run, and the manifest says so
        assert NAME in done.sentence


def test_a_folder_that_cannot_be_written_is_named(
    hub: Hub, commands: Commands, tmp_path: Path
) -> None:
    hub.repo("org/nowhere", models.model())
    (tmp_path / "file").write_text("mine")
    sentence = commands("alm", "pull", "org/nowhere", tmp_path / "file" / "model").sentence
    assert "cannot be written" in sentence and str(tmp_path / "file") in sentence
    assert not hub.fetched("ear.onnx")
