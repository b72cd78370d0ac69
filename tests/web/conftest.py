"""The browser runtime set up from its lock, and one browser for all of its tests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests import ROOT
from tests.conftest import shared_by_workers
from tests.runtime.serve.browsing import started

WEB = ROOT / "web"


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder web/, with what npm installs there of the lock."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    ready = WEB / "node_modules" / ".ready"
    stated = [WEB / name for name in ("package.json", "package-lock.json", "scripts/vendor.mjs")]
    with FileLock(shared_by_workers(tmp_path_factory) / "npm.lock"):
        if not ready.is_file() or any(f.stat().st_mtime > ready.stat().st_mtime for f in stated):
            # Scripts of other people's packages are not run; ours is, by its name.
            for words in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "build"]):
                done = subprocess.run(
                    [npm, *words], cwd=WEB, capture_output=True, text=True, timeout=300
                )
                assert done.returncode == 0, done.stderr
            ready.touch()
    return WEB


@pytest.fixture(scope="session")
def browser(web: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, headless; `web` comes first, so that its absence is what a skip names."""
    chrome = started(tmp_path_factory.mktemp("browser"))
    chrome.set_script_timeout(60)
    yield chrome
    chrome.quit()
