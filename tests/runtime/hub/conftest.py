"""A stand-in for the hub in a thread, and processes that take it for the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.hub import standin
from tests.runtime.hub.commands import Commands
from tests.runtime.hub.standin import Hub


@pytest.fixture(scope="session")
def _served() -> Iterator[Hub]:
    with standin.serving() as hub:
        yield hub


@pytest.fixture
def hub(_served: Hub) -> Iterator[Hub]:
    """The hub: empty, asked nothing, with nothing wrong."""
    _served.repos.clear()
    _served.stored.clear()
    _served.asked.clear()
    _served.tokens.clear()
    _served.go_on.clear()
    yield _served
    _served.status = 0
    _served.lies.clear()
    _served.sizes.clear()
    _served.stops.clear()
    _served.go_on.set()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Below it is the cache of all processes here: each test has a repository of another name."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def commands(_served: Hub, home: Path) -> Iterator[Commands]:
    """Commands of alm that reach the hub."""
    made = Commands(_served.url, home)
    yield made
    made.close()


@pytest.fixture(scope="session")
def offline(_served: Hub, home: Path) -> Iterator[Commands]:
    """The same under HF_HUB_OFFLINE=1."""
    made = Commands(_served.url, home, HF_HUB_OFFLINE="1")
    yield made
    made.close()
