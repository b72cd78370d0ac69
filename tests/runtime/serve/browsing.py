"""A headless Chromium with a microphone that hears a clip, and hands for the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.serve.serving import clip

WAIT = 30  # seconds for anything to happen
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--use-fake-ui-for-media-stream --use-fake-device-for-media-stream "
    "--autoplay-policy=no-user-gesture-required --window-size=1200,900"
).split()


def started(profile: Path) -> Any:
    """The browser; a test that finds none is skipped and says so."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    heard = f"--use-file-for-fake-audio-capture={clip('lamp')}"
    saved = {"download.default_directory": str(profile), "download.prompt_for_download": False}
    options.add_experimental_option("prefs", saved)
    for flag in (*FLAGS, heard, f"--user-data-dir={profile / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


class Page:
    """The page, opened anew."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser, self.url = browser, url
        for log in ("performance", "browser"):
            browser.get_log(log)  # of pages before
        browser.get(url)

    def js(self, script: str, *given: Any) -> Any:
        """What a script returns."""
        return self.browser.execute_script(script, *given)

    def module(self, name: str, script: str, *given: Any) -> Any:
        """What a script makes of one of the page's modules, `m`, and of what is given, `a`."""
        code = (
            "const done = arguments[arguments.length - 1], a = [...arguments].slice(1, -1);"
            f"import('/page/' + arguments[0]).then(async (m) => {{ {script} }})"
            ".then(done, (error) => done(`${error}`))"
        )
        return self.browser.execute_async_script(code, name, *given)

    def until(self, ready: str | Callable[[], Any], *given: Any) -> Any:
        """Wait for a condition, a JavaScript expression or a function, and give its value."""
        from selenium.webdriver.support.ui import WebDriverWait

        def look(_: Any) -> Any:
            return self.js(f"return {ready}", *given) if isinstance(ready, str) else ready()

        return WebDriverWait(self.browser, WAIT, 0.02).until(look, str(ready))

    def get(self, selector: str) -> Any:
        """The one element."""
        return self.browser.find_element("css selector", selector)

    def choose(self, path: Path) -> None:
        """A file through the dialog."""
        self.get("#file").send_keys(str(path))
        self.until("document.querySelector('#chosen .player')")

    def task(self, name: str) -> None:
        """Press the button of a task."""
        is_it = "t => t.firstChild.textContent === arguments[0]"
        self.until(f"[...document.querySelectorAll('.task')].some({is_it})", name)
        self.js(f"[...document.querySelectorAll('.task')].find({is_it}).click()", name)

    def say(self, prompt: str) -> None:
        """Write a prompt and send it."""
        self.until("document.querySelector('.task')")
        self.get("#prompt").send_keys(prompt + "\n")

    def answer(self, turn: int = 1) -> str:
        """The answer of this turn, once it is whole."""
        count = f"document.querySelectorAll('.turn').length === {turn}"
        self.until(f"{count} && document.getElementById('stop').hidden")
        return self.text(f".turn:nth-child({turn}) .words")

    def text(self, selector: str) -> str:
        """The text of the first such element, "" if there is none or it is not seen."""
        code = "const e = document.querySelector(arguments[0]);"
        return self.js(code + "return e && e.checkVisibility() ? e.textContent : ''", selector)

    def focused(self) -> str:
        """The text or the id of what has the focus."""
        return self.js("const e = document.activeElement; return e.id || e.textContent")

    def keys(self, *keys: str) -> None:
        """Press keys, one after another, wherever the focus is."""
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.browser, 0).send_keys(key).perform()

    def asked(self) -> list[str]:
        """The addresses that the browser asked for."""
        logs = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        urls = [log["params"]["request"]["url"] for log in logs if "request" in log["params"]]
        return [url for url in urls if not url.startswith("chrome")]  # its own new tab

    def complaints(self) -> list[str]:
        """What it wrote to its console."""
        return [entry["message"] for entry in self._log("browser")]

    def _log(self, name: str) -> Any:
        return self.browser.get_log(name)
