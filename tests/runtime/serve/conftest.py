"""One browser and one server of the demo model for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import alm
from alm.generation.model import Model
from tests.runtime.serve.browsing import Page, started
from tests.runtime.serve.serving import Served, clip, served


@pytest.fixture(scope="session")
def demo_model(demo: Path) -> Model:
    return alm.load(demo, threads=1, together=4)


@pytest.fixture(scope="session")
def demo_served(demo_model: Model) -> Iterator[Served]:
    with served(demo_model) as running:
        yield running


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the browser saves files."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="session")
def browser(saved: Path) -> Iterator[Any]:
    chrome = started(saved)
    yield chrome
    chrome.quit()


@pytest.fixture
def page(browser: Any, demo_served: Served) -> Page:
    """The page, just opened."""
    return Page(browser, demo_served.url)


@pytest.fixture(scope="session")
def long(saved: Path) -> Path:
    """Five windows of 10 s: a command and digits in each."""
    pieces = [soundfile.read(clip(name))[0] for name in ("lamp", "digits")]
    window = np.zeros(160_000)
    window[: len(pieces[0])] = pieces[0]
    window[80_000 : 80_000 + len(pieces[1])] = pieces[1]
    soundfile.write(saved / "long.wav", np.tile(window, 5), 16_000)
    return saved / "long.wav"
