"""The page as a person uses it, in a real browser: clips, words and turns."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.serve.browsing import Page
from tests.runtime.serve.serving import Served, clip

pytestmark = pytest.mark.browser

LAMP, DIGITS = "turn on the lamp in the kitchen", "four two eight eight one"
COPIES = ["clipboardReadWrite", "clipboardSanitizedWrite"]


# --- a clip and its words


def test_a_chosen_file_is_transcribed_as_it_is_said(page: Page) -> None:
    page.until("document.querySelector('.task')")
    assert page.js("return [...document.querySelectorAll('#tasks > .task')].length") == 5
    page.choose(clip("lamp"))
    page.js(
        "window.seen = []; new MutationObserver(() => {"
        " const text = document.querySelector('.words')?.textContent;"
        " if (text && text !== seen.at(-1)) seen.push(text);"
        "}).observe(document.body, {childList: true, subtree: true, characterData: true})"
    )
    page.task("transcribe")
    assert page.answer() == LAMP
    seen = page.js("return seen")
    assert len(seen) > 2 and all(LAMP.startswith(text) for text in seen)
    told = "[...document.getElementById('live').children].map((e) => e.textContent).join(' ')"
    page.until(f"{told} === arguments[0]", LAMP)
    stages = page.js("return [...document.querySelectorAll('.bars dt')].map(e => e.textContent)")
    assert stages[0] == "decode_audio" and {"mel", "whisper", "prefill", "decode"} <= set(stages)
    numbers = page.js("return [...document.querySelectorAll('.numbers dd')].map(e => e.innerText)")
    assert len(numbers) == 3 and all(text.endswith("s") for text in numbers)
    page.browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": COPIES})
    page.get(".acts button").click()
    page.until("document.querySelector('.acts button').textContent === 'Copied'")
    assert page.js("return navigator.clipboard.readText()") == LAMP
    assert page.complaints() == []
    asked = page.asked()
    own = (page.url, "blob:", "data:")
    assert asked and all(url.startswith(own) for url in asked), asked
    assert f"{page.url}/v1/audio/transcriptions" in asked


def test_a_recording_is_heard(page: Page, tmp_path: Path) -> None:
    page.until("document.querySelector('.task')")
    page.get("#record").click()
    page.until("parseFloat(document.getElementById('seconds').value) > 2.4")
    page.get("#recorded").click()
    page.until("document.querySelector('#chosen .wave')")
    page.task("transcribe")
    said = page.answer().split()  # the fake microphone says the clip again and again
    assert len(set(LAMP.split()) & set(said)) >= 4, said
    url = page.js("return document.querySelector('.turn .name').textContent")
    assert url == "recording 1.wav"
    assert page.complaints() == []


DROP = """
    for (const name of ["dragenter", "dragover", "drop"]) {
      const how = { dataTransfer: carried, bubbles: true, cancelable: true };
      document.body.dispatchEvent(new DragEvent(name, how));
      seen.push(document.getElementById("veil").hidden);
    }
"""
PASTE = """
    const how = { clipboardData: carried, bubbles: true };
    document.body.dispatchEvent(new ClipboardEvent("paste", how));
"""


@pytest.mark.parametrize(("way", "veils"), [(DROP, [False, False, True]), (PASTE, [])])
def test_a_file_is_dropped_or_pasted(page: Page, way: str, veils: list[bool]) -> None:
    carried = """
        const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const carried = new DataTransfer();
        carried.items.add(new File([bytes], "digits.wav"));
        carried.items.add(new File([bytes], "another.wav"));
        window.seen = [];
    """
    page.js(carried + way, base64.b64encode(clip("digits").read_bytes()).decode("ascii"))
    assert page.js("return seen") == veils
    page.until("document.querySelector('#chosen .name')?.textContent === 'digits.wav'")
    assert page.text("#wrong") == "One clip at a time: this is digits.wav."
    page.task("transcribe")
    assert page.answer() == DIGITS


def test_segments_are_played_and_saved(
    page: Page, long: Path, demo_served: Served, saved: Path
) -> None:
    page.choose(long)
    page.task("transcribe")
    page.answer()
    with long.open("rb") as file:
        right = demo_served.client().audio.transcriptions.create(
            model="demo", file=file, response_format="srt"
        )
    page.js("document.querySelector('.segments').open = true")
    lines = page.js("return [...document.querySelectorAll('.line')].map(e => e.innerText)")
    assert len(lines) == 5 and lines[1].startswith("0:10.0 – 0:20.0")
    page.js("document.querySelectorAll('.line')[3].click()")
    now = "parseFloat(document.querySelector('.turn .wave').getAttribute('aria-valuenow'))"
    page.until(f"{now} > 30 && document.querySelectorAll('.line')[3].matches('.heard')")
    page.js("document.querySelectorAll('.segment')[1].click()")
    page.until(f"{now} > 10 && {now} < 12 && document.querySelectorAll('.heard').length === 2")
    page.get(".turn .play").click()
    page.until("!document.querySelector('.play.runs')")
    page.js("[...document.querySelectorAll('.acts button')][1].click()")
    page.until(lambda: (saved / "long.srt").is_file())
    assert (saved / "long.srt").read_text("utf-8") == str(right)


def test_the_position_is_moved_by_the_waveform(page: Page) -> None:
    from selenium.webdriver import ActionChains

    page.choose(clip("lamp"))
    page.until("document.querySelector('.wave').getAttribute('aria-valuemax') === '2.01'")
    wave = page.get(".wave")
    ActionChains(page.browser).move_to_element(wave).click().perform()
    at = page.js("return document.querySelector('.wave').getAttribute('aria-valuenow')")
    assert abs(float(at) - 1.0) < 0.05
    page.js("document.querySelector('.wave').focus()")
    page.keys("\ue011")  # Home
    assert page.js("return document.querySelector('.wave').ariaValueText") == "0:00.0 of 0:02.0"
    drawn = (
        "const c = document.querySelector('.wave canvas');"
        "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)"
    )
    assert page.js(drawn)


# --- turns


def test_a_conversation_goes_on(page: Page, demo_served: Served) -> None:
    page.choose(clip("lamp"))
    page.say("what do you hear?")
    first = page.answer()
    assert first
    page.say("and where?")
    assert page.answer(2)
    counts = page.text(".turn:nth-child(2) .counts")
    assert "KV cache" in counts and "of audio" not in counts
    page.choose(clip("digits"))
    page.task("transcribe")
    assert page.answer(3)
    top = "return document.querySelector('.turn:nth-child(3)').getBoundingClientRect().top"
    assert 0 < page.js(top) < 80  # the newest turn begins under the head
    counts = page.text(".turn:nth-child(3) .counts")
    assert "62 of audio" in counts and "KV cache" in counts
    assert page.js("return document.querySelectorAll('.turn .player').length") == 2
    page.get("#anew").click()
    page.until("document.querySelector('#chosen .name').textContent === 'digits.wav'")
    page.task("transcribe")
    assert page.answer() == DIGITS
    assert page.complaints() == []


def test_a_prompt_without_a_clip_is_the_models_to_answer(page: Page) -> None:
    page.task("transcribe")
    assert page.text("#wrong").startswith("What shall be heard?")
    page.say("which room?")
    assert page.answer() and page.text("#wrong") == ""


def test_the_keyboard_does_it_all(page: Page) -> None:
    enter, tab, escape = "\ue007", "\ue004", "\ue00c"
    page.until("document.querySelector('.task')")
    page.keys(tab)
    assert page.focused() == "file"
    page.keys(tab)
    assert page.focused() == "record"
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert page.js(outline) == "solid"
    page.keys(enter)
    page.until("document.activeElement.id === 'recorded'")
    page.keys(escape)
    page.until("document.activeElement.id === 'record'")
    page.keys(enter)
    page.until("parseFloat(document.getElementById('seconds').value) > 2.2")
    page.keys(enter)
    page.until("document.activeElement.matches('.task')")
    page.keys(enter)
    assert page.answer()
    for _ in range(7):  # the other tasks, and where more of them are
        page.keys(tab)
        if page.focused() == "prompt":
            break
    assert page.focused() == "prompt"
    page.keys("which room?", enter)
    assert page.answer(2)


def test_a_model_of_one_turn_and_several_languages(browser: Any, demo_served: Served) -> None:
    """The server's own answer about its model, with what the demo has not."""
    script = """
        const real = window.fetch;
        window.sent = [];
        window.fetch = async (path, request) => {
          const answer = await real(path, request);
          if (path !== "v1/models") {
            const { body } = request;
            const form = body instanceof FormData;
            sent.push(form ? body.get("language") : JSON.parse(body).messages.length);
            return answer;
          }
          const found = await answer.json();
          Object.assign(found.data[0].alm, { one_turn: true, languages: { de: "German" } });
          return Response.json(found);
        };
    """
    tell = browser.execute_cdp_cmd
    added = tell("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        page = Page(browser, demo_served.url)
        page.until("document.getElementById('language')")
        page.choose(clip("lamp"))
        page.js("document.getElementById('language').value = 'de'")
        page.task("transcribe")
        assert page.answer()
        page.say("which room?")
        assert page.answer(2)
        assert page.js("return document.querySelectorAll('.turn .player').length") == 2
        assert page.js("return sent") == ["de", 1]
    finally:
        tell("Page.removeScriptToEvaluateOnNewDocument", added)
