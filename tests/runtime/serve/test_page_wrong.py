"""What goes wrong on the page, and how a person is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from alm.generation.model import Model
from tests.runtime.serve.browsing import Page
from tests.runtime.serve.serving import Served, clip, served

pytestmark = pytest.mark.browser

LAMP, DIGITS = "turn on the lamp in the kitchen", "four two eight eight one"
KEY = "a-key-of-the-test"


def test_an_answer_is_stopped_half_way(
    page: Page, demo_served: Served, long: Path, tmp_path: Path
) -> None:
    pcm, rate = soundfile.read(long)  # eight times, so that nobody is too late to stop it
    soundfile.write(tmp_path / "longer.wav", np.tile(pcm, 8), rate)
    page.choose(tmp_path / "longer.wav")
    page.task("transcribe")
    page.until("document.querySelector('.words')?.textContent.length > 10")
    page.get("#stop").click()
    page.until("document.getElementById('stop').hidden")
    assert page.text(".turn .note") == "Stopped here."
    page.until(lambda: demo_served.server.work.inside == 0)
    said = page.text(".words")
    assert said.startswith("turn on") and len(said.split()) < 8 * 60
    page.task("describe")
    assert page.answer(2)


def test_a_file_that_is_no_sound_is_told(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_bytes(b"bread, milk, eggs")
    page.choose(tmp_path / "notes.wav")
    page.until("document.querySelector('#chosen .wave.unseen')")
    page.task("transcribe")
    assert page.answer() == ""
    assert "not audio that can be read" in page.text(".turn .wrong")
    assert page.text(".figures") == ""
    page.choose(clip("digits"))
    page.task("transcribe")
    assert page.answer(2) == DIGITS


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ("undefined", "Browsers give the microphone to pages on localhost or https only."),
        ("no('NotAllowedError')", "The microphone was not allowed; "),
        ("no('NotFoundError')", "There is no microphone."),
    ],
)
def test_why_nothing_is_recorded(page: Page, devices: str, said: str) -> None:
    page.js(
        "const no = (name) => ({getUserMedia: async () => { throw new DOMException('', name); }});"
        f"Object.defineProperty(navigator, 'mediaDevices', {{value: {devices}}})"
    )
    page.get("#record").click()
    page.until("!document.getElementById('wrong').hidden")
    assert page.text("#wrong").startswith(said)
    page.choose(clip("lamp"))
    assert page.text("#wrong") == ""


def test_a_full_server_is_asked_again_in_time(browser: Any, demo_model: Model, long: Path) -> None:
    with served(demo_model, rows=1, waiting=0) as there:
        page = Page(browser, there.url)
        page.choose(clip("lamp"))
        there.server.work.most = 0  # as when others have come first
        page.task("transcribe")
        page.answer()
        assert "try again in" in page.text(".turn .wrong")
        again = ".turn .under button"
        assert page.text(again).startswith("Try again in ")
        assert not page.get(again).is_enabled()
        there.server.work.most = 1
        page.until(f"!document.querySelector('{again}').disabled")
        page.get(again).click()
        assert page.answer() == LAMP


def test_the_key_is_asked_for_where_there_is_one(browser: Any, demo_model: Model) -> None:
    with served(demo_model, api_key=KEY) as there:
        page = Page(browser, there.url)
        page.until("document.getElementById('ask-key').open")
        assert page.text("#key-why") == "This server answers to those who have its key."
        page.get("#key-text").send_keys("another-key\n")
        page.until("document.getElementById('key-why').textContent.startsWith('The server says')")
        page.get("#key-text").send_keys(f"{KEY}\n")
        page.choose(clip("lamp"))
        page.task("transcribe")
        assert page.answer() == LAMP
        assert page.js("return [localStorage.length, sessionStorage.length, document.cookie]") == [
            0,
            1,
            "",
        ]
        page.js("sessionStorage.setItem('alm.key', 'one-of-yesterday')")
        page.task("describe")
        page.until("document.getElementById('ask-key').open")
        page.get("#key-text").send_keys(f"{KEY}\n")
        assert page.answer(2)


def test_without_a_key_nobody_is_asked_for_one(page: Page) -> None:
    page.until("document.querySelector('.task')")
    assert not page.js("return document.getElementById('ask-key').open")
