"""Which backend is the fastest here: tried once for a decoder, and remembered for this machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import numpy as np

from alm.artifacts.embedding_table import Table
from alm.artifacts.engine_files import fingerprint
from alm.artifacts.manifest import Manifest
from alm.backends import open_session
from alm.decoder.decoder import Decoder
from alm.errors import AlmError
from alm.host import processor, user_cache
from alm.session import BackendOptions

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino")
# A usual answer: a prompt of so many tokens beside the audio's, and so many new ones.
PROMPT, ANSWER = 48, 32
STEPS = 6  # of the answer that are really taken
REPEATS = 2
MOST_REMEMBERED = 64
CHOICES = "fastest.json"  # {machine, backends and artifacts: provider}


class Fastest:
    """A judge for `backends.choose`: the backend with which this decoder answers soonest.

    A backend that cannot open every part is none.
    """

    def __init__(self, folder: Path, manifest: Manifest, threads: int = 0) -> None:
        self.folder, self.manifest, self.threads = folder, manifest, threads

    def __call__(self, providers: Iterable[str]) -> str:
        """The fastest of these; the first where there is nothing to try or nothing works."""
        versions = _versions()
        if len(versions) < 2 or not self.manifest.with_role("decoder"):
            return next(iter(providers))
        artifacts = fingerprint(self.manifest.files())
        key = " | ".join([_processor(), f"{self.threads} threads", *versions, artifacts])
        remembered = user_cache.recall(CHOICES).get(key)
        names: list[str] = []
        for name in providers:  # no further than what is remembered: the next is not even imported
            if name == remembered:
                return name
            names.append(name)
        if len(names) < 2:
            return names[0]
        took = {name: self._try(name) for name in names}
        best = min(names, key=lambda name: took[name])
        if took[best] < float("inf"):
            user_cache.remember(CHOICES, key, best, MOST_REMEMBERED)
        return best

    def _try(self, provider: str) -> float:
        """Seconds for a usual answer; infinite where the backend cannot do it."""
        dimensions, options = self.manifest.facts.dimensions, BackendOptions(provider, self.threads)
        room = dimensions.context - ANSWER
        prompt = max(1, min((dimensions.audio_tokens or 0) + PROMPT, room))
        part = self.manifest.with_role("decoder")[0]
        try:
            for other in self.manifest.with_role("frontend", "encoder", "bridge"):
                open_session(other, self.folder, options)
            session = open_session(part, self.folder, options)
            decoder = Decoder(session, part, _NoTable())
            return seconds(decoder, prompt, dimensions.hidden)
        except AlmError:
            return float("inf")


class _NoTable(Table):
    """A trial feeds embeddings only, so it looks no token up."""

    def __init__(self) -> None:
        self.shape = (0, 0)


def seconds(decoder: Decoder, prompt: int, hidden: int) -> float:
    """What a prompt of so many positions and an answer of `ANSWER` tokens take, at the least."""
    embeds = np.random.default_rng(0).standard_normal((1, prompt, hidden), np.float32) * 0.02
    one, all_of_it = np.ones(1, np.int64), np.array([prompt])
    prompts, steps = [], []
    for _ in range(1 + REPEATS):  # the first compiles kernels and fetches weights from disk
        decoder.start(1, prompt + STEPS)
        prompts.append(_timed(decoder, embeds, all_of_it))
        steps += [_timed(decoder, embeds[:, :1], one) for _ in range(STEPS)]
    return min(prompts) + ANSWER * min(steps)


def _timed(decoder: Decoder, embeds: np.ndarray, lengths: np.ndarray) -> float:
    start = time.perf_counter()
    decoder.feed(embeds, lengths)
    return time.perf_counter() - start


def _processor() -> str:
    """The processor's name and how many of its threads may be used."""
    name = platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith(("model name", "Model", "CPU part")):
                name = line.partition(":")[2].strip()
                break
    except (OSError, ValueError):
        pass
    return f"{platform.machine()} {name} x{processor.usable_cores()}"


def _versions() -> list[str]:
    """The backends installed, known without importing them: that takes a while."""
    versions: list[str] = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return versions
