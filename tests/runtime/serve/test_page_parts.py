"""The page's looks, and its modules one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import soundfile

from alm.text import segments
from tests.runtime.serve.browsing import Page
from tests.runtime.serve.serving import Served

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def opened(browser: Any, demo_served: Served) -> Page:
    """The page, whose modules are looked at one after another."""
    return Page(browser, demo_served.url)


# --- how it looks


def test_nothing_moves_while_an_answer_grows(page: Page, long: Path) -> None:
    page.choose(long)
    page.task("transcribe")
    page.until("document.querySelector('.words')?.textContent.length > 3")
    page.js(
        "window.moved = 0; new PerformanceObserver((list) => list.getEntries().forEach((e) =>"
        " { moved += e.value; })).observe({type: 'layout-shift', buffered: false})"
    )
    page.answer()
    page.until("document.querySelector('.bars dt')")
    assert page.js("return moved") < 0.005  # the caret, which is moved on


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_is_wide_enough(page: Page, long: Path, scheme: str) -> None:
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    tell = page.browser.execute_cdp_cmd
    tell("Emulation.setDeviceMetricsOverride", size)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    tell("Emulation.setEmulatedMedia", {"features": media})
    try:
        wide = "return document.documentElement.scrollWidth"
        page.until("document.querySelector('.task')")
        page.js("document.getElementById('more').open = true")
        assert page.js(wide) == 360
        page.choose(long)
        page.task("transcribe")
        page.answer()
        page.js("document.querySelector('.segments').open = true")
        assert page.js(wide) == 360
        page.get(".turn .play").click()
        page.until("document.querySelector('.play.runs')")
        assert "first token" in page.text(".figures")
        page.get(".turn .play").click()
        assert faint(page) == []
    finally:
        tell("Emulation.clearDeviceMetricsOverride", {})
        tell("Emulation.setEmulatedMedia", {"features": []})


def faint(page: Page) -> list[str]:
    """Texts whose contrast with what is behind them is less than WCAG's AA wants (4.5)."""
    return page.js(
        """
        const parts = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = (text) => {
          const [r, g, b] = parts(text).slice(0, 3).map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = (e) => {
          for (; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor;
            if ((parts(colour)[3] ?? 1) > 0) return colour;
          }
        };
        const found = [];
        for (const e of document.querySelectorAll("body *")) {
          const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
          if (!own || !e.checkVisibility() || e.closest("noscript")) continue;
          const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
          if ((a + 0.05) / (b + 0.05) < 4.5) found.push(`${e.className} ${e.textContent}`);
        }
        return found;
        """
    )


# --- its modules


def test_files_for_players_are_those_of_the_server(opened: Page) -> None:
    made = [
        segments.Segment(1.5, 3, "later"),
        segments.Segment(0, 1.4996, " a <b> & c\n\n--> d ", speaker="S01"),
        segments.Segment(3661.0004, 3662.9996, "and more"),
    ]
    plain = [{"start": s.start, "end": s.end, "text": s.text, "speaker": s.speaker} for s in made]
    for name, right in (("srt", segments.srt(made)), ("vtt", segments.vtt(made))):
        assert opened.module("captions.js", f"return m.{name}(a[0])", plain) == right


def test_words_that_are_timed_are_marked_where_they_stand(opened: Page) -> None:
    script = """
        const { Player } = await import("/page/player.js");
        const { Clip } = await import("/page/clip.js");
        const turn = new m.Turn({ player: new Player(new Clip(new Blob(), "a.wav")), prompt: "x" });
        turn.add(a[0]);
        const alm = { segments: a[1], notes: [], timings_ms: { total: 2, first_token: 1 } };
        turn.done({ alm, usage: { prompt: 1, answer: 1 }, whole: a[0] }, true);
        const heard = [];
        for (const now of [0.2, 0.6, 1.2]) {
          turn.player.onposition(now, true);
          heard.push([...turn.words.querySelectorAll(".heard")].map((e) => e.textContent));
        }
        const lines = [...turn.element.querySelectorAll(".line")].map((e) => e.innerText);
        turn.close();
        return [turn.words.textContent, heard, lines];
    """
    text = "So, so! Then: <b>."
    words = [("So", 0, 0.5), ("so", 0.5, 1), ("Then", 1, 1.5)]
    timed = [{"text": text, "start": start, "end": end} for text, start, end in words]
    pieces = [
        {"start": 0, "end": 1, "text": "So, so!", "words": timed[:2], "speaker": "S01"},
        {"start": 1, "end": 2, "text": "Then: <b>.", "words": timed[2:], "speaker": "S02"},
    ]
    whole, heard, lines = opened.module("turn.js", script, text, pieces)
    assert whole == text
    assert heard == [["So, so!", "So"], ["So, so!", "so"], ["Then: <b>.", "Then"]]
    assert [line.count("S0") for line in lines] == [1, 1]


def test_a_recording_is_a_wav_that_others_read(opened: Page, tmp_path: Path) -> None:
    script = """
        const file = m.wav([Float32Array.of(0, 0.5, -0.5), Float32Array.of(2, -2)], 16000);
        return [...new Uint8Array(await file.arrayBuffer())];
    """
    (tmp_path / "made.wav").write_bytes(bytes(opened.module("recorder.js", script)))
    pcm, rate = soundfile.read(tmp_path / "made.wav", dtype="int16")
    assert rate == 16000 and pcm.tolist() == [0, 16384, -16383, 32767, -32767]


def test_numbers_are_as_people_read_them(opened: Page) -> None:
    times = "return [0.04, 9.96, 220.6, 999.7, 12345].map(m.duration)"
    assert opened.module("dom.js", times) == ["0.0 ms", "10 ms", "221 ms", "1.00 s", "12.3 s"]
    clocks = "return [2.04, 59.96, 3725.5].map((s) => m.clock(s))"
    assert opened.module("dom.js", clocks) == ["0:02.0", "1:00.0", "1:02:05.5"]


def test_bars_add_up_to_the_total(opened: Page) -> None:
    times = {"load": 900, "mel": 30, "prefill": 20, "first_token": 55, "per_token": 2, "total": 120}
    rows = opened.module("figures.js", "return m.stages(a[0])", times)
    assert (
        sorted(rows) == [["decode", 70], ["mel", 30], ["prefill", 20]] and rows[-1][0] == "decode"
    )


def test_tasks_of_one_kind_are_shown_once(opened: Page) -> None:
    named = [("transcribe", "A"), ("asr", "A"), ("translate_de", "B"), ("translate_ja", "C")]
    script = "return m.arranged(Object.fromEntries(a[0])).main.map(([name]) => name)"
    main = opened.module("tasks.js", script, [*named, ("music", "D")])
    assert main == ["transcribe", "translate_de", "music"]
