"""Backends, one file each: PROVIDERS it drives, `available()` here, and `open_session`.

ON_CPU are those of its providers that run on the processor. Its `open_session(part, folder,
options)` opens the graph or engine of a part, whose files are verified before; the one who calls it
is `open_session` here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import ModuleType

from alm import registry
from alm.artifacts import verify
from alm.artifacts.part import Part
from alm.errors import BadArtifacts, MissingPackage, UnknownName
from alm.onnxfile import summary
from alm.ports import differences, is_slot
from alm.session import BackendOptions, InTurn, OneRowChunks, PieceByPiece, RowByRow, Session

PREFERRED = "ort"  # the backend that comes first; the others follow by name
HALVES = ("float16", "bfloat16")  # types of weights that a CPU widens


def _backends() -> dict[str, ModuleType]:
    """Provider name -> the backend that drives it, in the order of preference."""
    here = sys.modules[__name__]
    names = sorted(registry.names(here), key=lambda name: name != PREFERRED)
    modules = [registry.pick(here, name) for name in names]
    return {provider: module for module in modules for provider in module.PROVIDERS}


def on_cpu(provider: str) -> bool:
    """Whether it runs on the processor: of those, only a trial tells which is the faster one."""
    module = _backends().get(provider)
    return module is not None and provider in module.ON_CPU


def known() -> list[str]:
    """Every provider that some backend drives, installed or not."""
    return list(_backends())


def choose(provider: str, judge: Callable[[Iterable[str]], str] | None = None) -> str:
    """The provider meant by `provider`; "auto" is the first one that is installed.

    Args:
        provider: a provider's name or "auto".
        judge: picks one of the processor's providers, given the preferred first, where none for
            another device comes before them. A backend is imported when the judge gets to it.

    Raises:
        UnknownName: nobody drives it.
        MissingPackage: "auto", and no backend is installed.
    """
    if provider != "auto":
        if provider not in known():
            raise UnknownName(
                f"unknown provider {provider!r}; there is: auto, {', '.join(known())}"
            )
        return provider
    there = _installed()
    first = next(there)
    if judge is None or not on_cpu(first):
        return first
    return judge(chain([first], filter(on_cpu, there)))


def here() -> list[str]:
    """The providers that can be used here, the preferred first; raises as `choose`."""
    return [*_installed()]


def _installed() -> Iterator[str]:
    """The providers that can be used here; MissingPackage when there are none."""
    missing: MissingPackage | None = None
    none = True
    for name, module in _backends().items():
        try:
            if name in module.available():
                none = False
                yield name
        except MissingPackage as error:
            missing = missing or error
    if none:
        raise missing or MissingPackage("no backend is installed; try: pip install 'alm-edge[ort]'")


def open_session(
    part: Part, folder: Path, options: BackendOptions, *, trusted: bool = False
) -> Session:
    """Open a part's graph with the backend that drives `options.provider`: the one door to a graph.

    Args:
        part: as the manifest has it; its first file is the graph.
        folder: that holds the part's files.
        options: of the backend; `lean` and `halves` follow from the part.
        trusted: the files were written by this process a moment ago, so they are neither hashed nor
            looked into, and the ports need not be the part's.

    Raises:
        MissingFile, BadArtifacts: a file that is not what the manifest says or is changed while it
            is opened, external data outside the folder, operators that are code from outside, or a
            graph with other ports than the manifest's; or the backend does not take the graph.
        MissingPackage: the backend, or what it needs, is not there.
    """
    # An encoder runs once for a window of audio and takes much; a decoder runs for every token.
    seldom = part.role != "decoder"
    halves = seldom and part.storage.layers.dtype in HALVES
    tuned = replace(options, lean=options.lean or seldom, halves=halves)
    backend = _backends()[options.provider]
    if trusted:
        return any_size(in_turn(backend.open_session(part, folder, tuned), tuned), part)
    listed = {file.name for file in part.files}
    with verify.unchanged(folder, part.files) as paths:
        verify.check_graph(folder, summary.read(paths[0]), part.files[0].name, listed)
        session: Session = in_turn(backend.open_session(part, folder, tuned), tuned)
    for side, ours, theirs in (
        ("input", part.inputs, session.inputs),
        ("output", part.outputs, session.outputs),
    ):
        wrong = differences(ours, theirs, side)
        if wrong:
            raise BadArtifacts(f"{paths[0]} has other {side}s than the manifest: {wrong}")
    return any_size(session, part)


def in_turn(session: Session, options: BackendOptions) -> Session:
    """The session that waits for its turn, where there are turns."""
    return InTurn(session, options.turns) if options.turns else session


def any_size(session: Session, part: Part) -> Session:
    """The session that takes any batch, and any length of what the part states as its pieces."""
    rows = by_rows(session, part)
    if not part.pieces:
        return rows
    return PieceByPiece(rows, part.inputs, part.pieces, part.spans[part.pieces].most)


def by_rows(session: Session, part: Part) -> Session:
    """The session that takes any batch: its rows go together, one by one, or in chunks of one.

    One by one where the graph or the backend has a single row; in chunks of one where several
    tokens of several rows may not meet a past (`Part.chunk_rows`).
    """
    batches = {p.axes[0] for name, p in part.inputs.items() if p.axes and not is_slot(name)}
    if session.one_row or batches == {1}:
        return RowByRow(session)
    return OneRowChunks(session) if part.chunk_rows == 1 else session
