"""A pull that is killed goes on where it was, and two at once make one folder."""

from __future__ import annotations

import time
from pathlib import Path

from tests.runtime.hub import models
from tests.runtime.hub.commands import Commands
from tests.runtime.hub.standin import Hub

DATA = "sub/decoder.onnx.data"
CHUNK = 10 * 2**20  # huggingface_hub writes so many bytes at a time
LARGE = CHUNK + 500_000


def wait_for(path: Path, size: int) -> None:
    end = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < end, f"{path} never had {size} bytes"
        time.sleep(0.02)


def test_a_pull_that_is_killed_goes_on_in_the_middle_of_a_file(
    hub: Hub, commands: Commands, tmp_path: Path
) -> None:
    held = models.model(5, LARGE)
    hub.repo("org/killed", held)
    hub.stops[DATA] = CHUNK + 1
    place = tmp_path / "model"
    running = commands.started("pull", "org/killed", place)
    part = place / ".pull" / models.listed(DATA, held[DATA]).sha256
    wait_for(part, CHUNK)
    running.kill()
    running.communicate()
    assert not (place / "manifest.json").exists() and not (place / "ear.onnx").exists()
    assert "is no artifact folder" in commands("alm", "inspect", place).sentence

    hub.stops.clear()
    hub.go_on.set()
    hub.asked.clear()
    done = commands("alm", "pull", "org/killed", place)
    assert done.status == 0 and f"from byte {CHUNK:,} on" in done.err
    assert models.read(place) == held
    assert {line.split()[-1] for line in hub.fetched(DATA)} == {f"bytes={CHUNK}-"}
    assert not hub.fetched("ear.onnx")  # it was whole


def test_a_pull_that_is_killed_between_two_names_goes_on_and_fetches_nothing(
    hub: Hub, commands: Commands, tmp_path: Path
) -> None:
    held = models.model(9)
    hub.repo("org/named", held)
    named = {"ear.onnx": held["ear.onnx"], "tokenizer.json": held["tokenizer.json"]}
    others = {
        f".pull/{models.listed(name, content).sha256}": content
        for name, content in held.items()
        if name not in (*named, "manifest.json")
    }
    place = models.written(named | others, tmp_path / "model")
    assert commands("alm", "pull", "org/named", place).status == 0
    assert models.read(place) == held
    assert {name for name in held if hub.fetched(name)} == {"manifest.json"}


def test_what_is_no_beginning_of_a_file_is_fetched_anew(
    hub: Hub, commands: Commands, tmp_path: Path
) -> None:
    held = models.model(6)
    hub.repo("org/anew", held)
    for name, there in {DATA: bytes(20_000), "ear.onnx": bytes(9_000)}.items():
        part = tmp_path / ".pull" / models.listed(name, held[name]).sha256
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(there)
    assert commands("alm", "pull", "org/anew", tmp_path).status == 0
    assert models.read(tmp_path) == held


def test_two_pulls_at_once_fetch_a_file_once(hub: Hub, commands: Commands) -> None:
    held = models.model(7, LARGE)
    hub.repo("org/twice", held)
    hub.stops[DATA] = CHUNK + 1
    both = [commands.started("pull", "org/twice") for _ in range(2)]
    end = time.monotonic() + 60
    while sum(line.startswith("HEAD") for line in hub.asked) < 2 or not hub.fetched(DATA):
        assert time.monotonic() < end, hub.asked
        time.sleep(0.02)
    hub.stops.clear()
    hub.go_on.set()
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    (place,) = {out.strip() for out, _ in said}
    assert models.read(Path(place)) == held
    assert len(hub.fetched("ear.onnx")) == 1
