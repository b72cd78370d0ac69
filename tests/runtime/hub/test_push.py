"""A folder to the hub: its listed files, its manifest and a card, in one commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from alm.artifacts.manifest import NAME
from alm.artifacts.manifest import load as load_manifest
from tests.runtime.hub import models
from tests.runtime.hub.commands import Commands
from tests.runtime.hub.standin import Hub, Repo

DATA = "sub/decoder.onnx.data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and files that are none of it."""
    held = models.model(8) | {"notes.txt": b"mine", ".env": b"TOKEN=x"}
    return models.written(held, tmp_path / "model")


def pushed(hub: Hub, name: str, branch: str = "main") -> dict[str, bytes]:
    repo = hub.repos[name]
    return repo.commits[repo.refs[branch]]


def test_what_goes_up_is_what_is_listed_with_a_card_and_comes_back(
    hub: Hub, commands: Commands, folder: Path, tmp_path: Path
) -> None:
    done = commands("alm", "push", folder, "me/new")
    assert done.status == 0 and done.out.startswith(f"{hub.url}/me/new/commit/"), done
    held = pushed(hub, "me/new")
    assert held.keys() == {*models.model(8), "README.md"}
    assert b"hub:me/new" in held["README.md"] and not hub.repos["me/new"].private
    assert commands("alm", "pull", "me/new", tmp_path / "back").status == 0
    assert models.read(tmp_path / "back") == models.model(8)


def test_what_the_hub_holds_is_not_sent_again(hub: Hub, commands: Commands, folder: Path) -> None:
    assert commands("alm", "push", folder, "me/again").status == 0
    assert any(line.startswith("PUT") for line in hub.asked)
    hub.asked.clear()
    assert commands("alm", "push", folder, "me/again").status == 0
    assert not any(line.startswith("PUT") for line in hub.asked)


def test_a_branch_is_made_and_main_stays(hub: Hub, commands: Commands, folder: Path) -> None:
    hub.repo("me/branches", {"README.md": b"# old"})
    assert commands("alm", "push", folder, "me/branches", "--revision", "int4").status == 0
    assert pushed(hub, "me/branches") == {"README.md": b"# old"}
    held = pushed(hub, "me/branches", "int4")
    assert held.keys() == {*models.model(8), "README.md"}
    assert b"hub:me/branches@int4" in held["README.md"]
    wrong = commands("alm", "push", folder, "me/branches@int4")
    assert "me/branches --revision BRANCH" in wrong.sentence


def test_private_is_private_or_nothing_goes_up(
    hub: Hub, commands: Commands, folder: Path, home: Path
) -> None:
    hub.repos["me/open"] = Repo()
    sentence = commands("alm", "push", folder, "me/open", "--private").sentence
    assert "me/open is there already and public" in sentence
    assert hub.repos["me/open"].commits == {}
    from tests.runtime.hub.standin import TOKEN

    known = Commands(hub.url, home, HF_TOKEN=TOKEN)
    try:
        assert known("alm", "push", folder, "me/closed", "--private").status == 0
    finally:
        known.close()
    assert hub.repos["me/closed"].private and NAME in pushed(hub, "me/closed")


def test_a_file_that_is_not_what_the_manifest_says_is_not_sent(
    hub: Hub, commands: Commands, folder: Path
) -> None:
    (folder / "ear.onnx").write_bytes(bytes(3_000))
    assert "'ear.onnx' in" in commands("alm", "push", folder, "me/spoilt").sentence
    (folder / "ear.onnx").unlink()
    (folder / "ear.onnx").symlink_to("/etc/hostname")
    assert "symbolic link" in commands("alm", "push", folder, "me/spoilt").sentence
    assert hub.asked == []


def test_engines_stay_at_home(hub: Hub, commands: Commands, folder: Path) -> None:
    (folder / "ear.engine").write_bytes(b"code")
    load_manifest(folder).with_engines([models.engine(b"code")]).save(folder)
    done = commands("alm", "push", folder, "me/engines")
    assert (
        done.status == 0
        and "engines stay here, they are built where they run: ear.engine" in done.err
    )
    held = pushed(hub, "me/engines")
    assert "ear.engine" not in held and b"ear.engine" not in held[NAME]
    assert load_manifest(folder).engines


def test_a_card_that_was_written_by_hand_may_stay(
    hub: Hub, commands: Commands, folder: Path
) -> None:
    hub.repo("me/hand", {"README.md": b"# by hand"})
    assert commands("alm", "push", folder, "me/hand", "--no-card").status == 0
    assert pushed(hub, "me/hand")["README.md"] == b"# by hand" and NAME in pushed(hub, "me/hand")


def test_a_dry_run_prints_the_card_and_asks_nobody(
    hub: Hub, commands: Commands, folder: Path
) -> None:
    done = commands("alm", "push", folder, "me/dry", "--dry-run")
    assert done.status == 0 and done.out.startswith("---\n") and hub.asked == []
    assert {f"would upload {name}" for name in (*models.model(8), "README.md")} == set(
        done.err.splitlines()
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (200, "does not answer as a hub does about me/no (KeyError: 'url')"),
        (401, "HF_TOKEN"),
        (403, "does not allow that for me/no (403)"),
        (500, "fails (500)"),
    ],
)
def test_a_hub_that_refuses_a_push_is_one_sentence(
    hub: Hub, commands: Commands, folder: Path, status: int, said: str
) -> None:
    hub.status = status
    assert said in commands("alm", "push", folder, "me/no").sentence


def test_offline_nothing_goes_up(hub: Hub, offline: Commands, folder: Path) -> None:
    assert "forbids to upload me/later" in offline("alm", "push", folder, "me/later").sentence
    assert hub.asked == []
