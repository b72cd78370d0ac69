"""The browser runtime in Chromium: the words of the demo's clips, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import alm
from alm.generation.model import Model
from demo.clips import FOLDER
from tests.runtime.serve.browsing import Page
from tests.web.hosting import STREAMED, Host, hosted

pytestmark = pytest.mark.browser

ASKED = {"lamp": "transcribe", "digits": "transcribe", "siren": "describe"}
WORDS = {
    "lamp": "turn on the lamp in the kitchen",
    "digits": "four two eight eight one",
    "siren": "a two-tone siren",
}


@pytest.fixture(scope="module")
def model(demo: Path) -> Model:
    return alm.load(demo, "cpu", threads=1)


@pytest.fixture(scope="module")
def host(web: Path, demo: Path, browser: Any) -> Iterator[Host]:
    """A page that holds the demo model open, as `model`."""
    folders = {"web": web, "demo": demo, "clips": FOLDER}
    with hosted(folders) as url:
        browser.get(f"{url}/web/package.json")  # a page of that origin, and an empty one
        made = Host(url, folders, browser)
        opened = made.run(
            "window.model = await web.openInWorker('/demo/', {provider: 'wasm', threads: 2});"
            "return [model.provider, model.threads, model.rate, crossOriginIsolated]"
        )
        assert opened == ["wasm", 2, 16000, True], opened
        yield made


@pytest.fixture
def spoiled(host: Host, demo: Path, tmp_path: Path) -> Callable[[Callable[[Path], Any]], str]:
    """What is said of a copy of the demo's folder after a change."""

    def said(change: Callable[[Path], Any]) -> str:
        name = f"spoiled-{len(host.folders)}"
        copied = host.folders[name] = Path(shutil.copytree(demo, tmp_path / name))
        change(copied)
        body = "await (await web.openInWorker(a[0], {provider: 'wasm'})).close(); return ''"
        return host.run(body, f"/{name}/")

    return said


def samples(name: str) -> list[float]:
    """A clip's float32 samples, exactly."""
    pcm: Any = soundfile.read(FOLDER / f"{name}.wav", dtype="float32")[0]
    return pcm.tolist()


@pytest.mark.parametrize("name", ASKED)
def test_the_tokens_are_pythons(host: Host, model: Model, name: str) -> None:
    task = ASKED[name]
    theirs, ours = (
        host.run(STREAMED, samples(name), task, {}),
        model.generate(FOLDER / f"{name}.wav", task),
    )
    assert theirs["tokenIds"] == ours.token_ids and theirs["text"] == ours.text == WORDS[name]
    assert "".join(theirs["pieces"]) == ours.text and len(theirs["pieces"]) > 2
    assert theirs["promptTokens"] == ours.prompt_tokens
    assert theirs["audioTokens"] == ours.audio_tokens and theirs["stopReason"] == "eos"
    stages = {"mel", "whisper", "fbank", "beats", "qformer", "prefill", "decode"}
    assert stages < theirs["timings"].keys()


def test_a_file_is_decoded_by_the_browser_to_the_same_samples(host: Host) -> None:
    body = (
        "const file = await (await fetch('/clips/lamp.wav')).blob();"
        "return [...await web.decode(file, model)]"
    )
    heard = np.array(host.run(body), np.float32)
    assert np.abs(heard - np.array(samples("lamp"), np.float32)).max() < 2**-15


def test_free_prompts_several_clips_and_options_are_pythons(host: Host, model: Model) -> None:
    body = """
        const clips = a[0].map((pcm) => new Float32Array(pcm));
        return (await model.generate(clips, a[1], a[2])).tokenIds;
    """
    clips = [samples("lamp"), samples("digits")]
    arrays = [np.array(clip, np.float32) for clip in clips]
    prompt = "First <audio> and then <audio> what is said?"
    options: dict[str, Any] = {"max_new_tokens": 9, "repetition_penalty": 1.3}
    ours = model.generate([arrays], prompt, **options)[0]
    assert host.run(body, clips, prompt, options) == ours.token_ids
    ours = model.generate([arrays[:1]], "kitchen", stop=["lamp"], verbatim=True)[0]
    given = {"stop": ["lamp"], "verbatim": True}
    assert host.run(body, clips[:1], "kitchen", given) == ours.token_ids


def test_a_long_clip_is_answered_window_by_window(host: Host, model: Model) -> None:
    window = np.zeros(160_000, np.float32)
    for name, at in (("lamp", 0), ("digits", 80_000)):
        pcm = np.array(samples(name), np.float32)
        window[at : at + len(pcm)] = pcm
    long = np.concatenate([window, window[:40_000]])
    theirs, ours = (
        host.run(STREAMED, long.tolist(), "transcribe", {}),
        model.generate(long, "transcribe"),
    )
    assert theirs["windows"] == ours.windows == 2
    assert theirs["tokenIds"] == ours.token_ids and theirs["text"] == ours.text
    assert theirs["notes"] == list(ours.notes)


def test_an_answer_can_be_left_and_the_next_is_whole(host: Host) -> None:
    body = """
        const pcm = new Float32Array(a[0]);
        for await (const piece of model.stream(pcm, 'transcribe')) break;
        return (await model.generate(pcm, 'transcribe')).text;
    """
    assert host.run(body, samples("lamp")) == WORDS["lamp"]


def test_a_file_that_differs_by_a_byte_is_refused_by_its_name(
    spoiled: Callable[[Callable[[Path], Any]], str],
) -> None:
    def bit(name: str) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            data = bytearray((folder / name).read_bytes())
            data[len(data) // 2] ^= 1
            (folder / name).write_bytes(data)

        return change

    for name in ("embed.npy", "tokenizer.json", "decoder.onnx.data"):
        assert f"'{name}' has sha256" in spoiled(bit(name)), name
    shorter = spoiled(lambda folder: (folder / "mel.onnx").write_bytes(b"short"))
    assert "'mel.onnx' has 5 bytes, and the manifest says" in shorter
    assert "there is no 'mel.onnx'" in spoiled(lambda folder: (folder / "mel.onnx").unlink())
    assert spoiled(lambda folder: None) == ""


def test_a_manifest_that_leads_out_of_its_folder_is_refused(
    spoiled: Callable[[Callable[[Path], Any]], str],
) -> None:
    def named(name: str) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            plain = json.loads((folder / "manifest.json").read_text("utf-8"))
            plain["tokenizer"]["name"] = name
            (folder / "manifest.json").write_text(json.dumps(plain), "utf-8")

        return change

    for name in ("../demo/tokenizer.json", "/demo/tokenizer.json", "https://example.org/a"):
        assert "refused" in spoiled(named(name)), name


def test_what_is_not_done_is_refused_by_its_name(
    host: Host, spoiled: Callable[[Callable[[Path], Any]], str]
) -> None:
    asked = {"num_beams": 4, "temperature": 0.5, "schema": {}, "adapter": "a", "delay": 80}
    for name, value in asked.items():
        said = host.run(STREAMED, [0.5] * 16000, "describe", {name: value})
        assert said.startswith(f"BadOption: {name} is not done in a browser"), said
    assert "did you mean transcribe" in host.run(STREAMED, [0.5], "transcrib", {})

    def units(folder: Path) -> None:
        plain = json.loads((folder / "manifest.json").read_text("utf-8"))
        plain["units"] = {"count": 8}
        (folder / "manifest.json").write_text(json.dumps(plain), "utf-8")

    assert "(units): that is not done in a browser" in spoiled(units)


def test_the_page_answers_and_asks_no_other_host(host: Host, browser: Any) -> None:
    page = Page(browser, f"{host.url}/web/index.html?model=/demo/")
    page.until("!document.getElementById('ask').hidden")
    page.get("#file").send_keys(str(FOLDER / "digits.wav"))
    page.until("!document.getElementById('play').hidden")
    page.keys("\ue007")  # Enter: the first task has the focus
    page.until("document.querySelector('.numbers')")
    assert page.text(".words") == WORDS["digits"]
    assert "whisper" in page.text(".bars") and "first token" in page.text(".numbers")
    page.get("#prompt").send_keys("transcrib\n")
    assert "did you mean transcribe" in page.until(
        "document.querySelector('li .wrong')?.textContent"
    )
    for width in (360, 1200):
        browser.set_window_size(width, 800)
        assert page.js("return document.documentElement.scrollWidth <= innerWidth")
    assert {url for url in page.asked() if not url.startswith((host.url, "data:"))} == set()
    assert page.complaints() == []
