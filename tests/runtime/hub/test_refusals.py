"""A hub that refuses, fails or is not there: a sentence each, or what was cached before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.hub import models
from tests.runtime.hub.commands import ONE, Commands, environment
from tests.runtime.hub.standin import TOKEN, Hub, Repo


def test_a_model_that_is_not_there_is_named(hub: Hub, commands: Commands) -> None:
    sentence = commands("alm", "pull", "org/nobody").sentence
    assert sentence.startswith(f"there is no model org/nobody on {hub.url}")
    assert "HF_TOKEN" in sentence


def test_a_revision_and_a_manifest_that_are_not_there_are_named(
    hub: Hub, commands: Commands
) -> None:
    hub.repo("org/some", {"README.md": b"#"})
    assert commands("alm", "pull", "org/some@v9").sentence == "org/some has no revision 'v9'"
    assert commands("alm", "pull", "org/some").sentence.startswith(
        "org/some is no model that alm-edge exported: it holds no manifest.json"
    )


def test_a_gated_model_says_where_its_terms_are(hub: Hub, commands: Commands) -> None:
    hub.repos["org/gated"] = Repo(gated=True)
    hub.repo("org/gated", models.model())
    sentence = commands("alm", "pull", "org/gated").sentence
    assert f"org/gated is gated: accept its terms on {hub.url}/org/gated" in sentence


def test_a_token_is_the_environments_and_goes_to_the_hub_alone(
    hub: Hub, commands: Commands, home: Path, tmp_path: Path
) -> None:
    hub.repos["org/private"] = Repo(private=True)
    hub.repo("org/private", models.model())
    assert "or it is private" in commands("alm", "pull", "org/private").sentence
    known = Commands(hub.url, home, HF_TOKEN=TOKEN)
    try:
        hub.tokens.clear()
        assert known("alm", "pull", "org/private", tmp_path / "model").status == 0
    finally:
        known.close()
    assert hub.tokens == {"127.0.0.1": f"Bearer {TOKEN}", "localhost": None}
    assert models.read(tmp_path / "model") == models.model()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (500, "fails (500) for org/ill; try again later"),
        (503, "fails (503) for org/ill; try again later"),
        (429, "wants fewer requests (429)"),
        (401, "org/ill"),
        (403, "does not allow that for org/ill (403)"),
        (418, "refuses the request for org/ill (418)"),
        (200, "is no hub: its answer names no commit"),
    ],
)
def test_a_hub_that_fails_is_one_sentence(
    hub: Hub, commands: Commands, status: int, said: str
) -> None:
    hub.repo("org/ill", models.model())
    hub.status = status
    assert said in commands("alm", "pull", "org/ill").sentence


def test_what_is_cached_does_where_the_hub_fails_or_is_not_asked(
    hub: Hub, commands: Commands, offline: Commands, tmp_path: Path
) -> None:
    hub.repo("org/kept", models.model())
    place = commands("alm", "pull", "org/kept").out
    hub.status = 503
    done = commands("alm", "pull", "org/kept")
    assert (done.status, done.out) == (0, place)
    assert done.err.startswith("note: ") and "meanwhile commit " in done.err
    hub.asked.clear()
    done = offline("alm", "pull", "org/kept")
    assert (done.status, done.out, done.err, hub.asked) == (0, place, "", [])
    copy = offline("alm", "pull", "org/kept", tmp_path / "copy")
    assert (copy.status, copy.err, hub.asked) == (0, "", [])
    assert models.read(tmp_path / "copy") == models.model()


def test_offline_and_not_cached_is_one_sentence(
    hub: Hub, commands: Commands, offline: Commands
) -> None:
    hub.repo("org/later", models.model())
    assert "org/later is not cached here whole" in offline("alm", "pull", "org/later").sentence
    assert commands("alm", "plan", "hub:org/later").status in (1, 2)  # its manifest is cached now
    assert "HF_HUB_OFFLINE" in offline("alm", "pull", "org/later").sentence
    assert not [line for line in hub.asked if "ear.onnx" in line]


def test_no_network_is_one_sentence(home: Path) -> None:
    nowhere = Commands("http://127.0.0.1:9", home)
    try:
        sentence = nowhere("alm", "pull", "org/far").sentence
    finally:
        nowhere.close()
    assert sentence.startswith("http://127.0.0.1:9 does not answer about org/far (")


@pytest.mark.parametrize("words", ["org", "a/b/c", "org/na me", "org/..", "-x/y", "org/a@", "@v1"])
def test_a_name_that_is_none_is_refused_before_anybody_is_asked(
    hub: Hub, commands: Commands, words: str
) -> None:
    done = commands("alm", "pull", "--", words)
    assert done.status == 2 and "wanted org/name or org/name@revision" in done.sentence
    assert commands("alm", "inspect", f"hub:{words}").status == 2
    assert hub.asked == []


def test_a_disk_without_room_is_seen_before_a_byte_comes(
    hub: Hub, commands: Commands, tmp_path: Path
) -> None:
    held = models.model()
    sha = models.listed("ear.onnx", held["ear.onnx"]).sha256
    hub.repo("org/wide", models.spoilt(held, 0, bytes=2**55, sha256=sha))
    hub.sizes["ear.onnx"] = 2**55
    hub.lies["ear.onnx"] = b""
    sentence = commands("alm", "pull", "org/wide", tmp_path / "m").sentence
    assert sentence.startswith("org/wide takes 36,028,797,019") and "MB are free" in sentence
    assert not hub.fetched("ear.onnx")


def test_without_huggingface_hub_the_extra_is_named(home: Path) -> None:
    code = f"import sys; sys.modules['huggingface_hub'] = None; {ONE}"
    for words in (["pull", "org/x"], ["inspect", "hub:org/x"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env=environment("http://127.0.0.1:9", home),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1 and done.stderr == (
            "error: models on a hub want huggingface_hub, which is not installed: "
            "pip install 'alm-edge[hub]'\n"
        )
