"""One part from checkpoint to files: load, lever, trace, simplify, save, compare."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch import Tensor

from alm.artifacts.embedding_table import open_table
from alm.artifacts.manifest import Part
from alm.errors import BadOption, ExportFailed
from alm.onnxfile import summary
from alm.ports import Port
from alm.precision import PLAIN, Codes, Storage
from exporters import (
    answering,
    calibration,
    embedding_table,
    golden,
    graph,
    numbering,
    parity,
    precisions,
    simplify,
)
from exporters.bundle import Bundle
from exporters.levers import Hear
from wrappers import Checkpoint, Wrapper, slots
from wrappers.checkpoint.adapters.at_run_time import Shares
from wrappers.checkpoint.weights.memory import give_back

TABLE = "embed"  # the part that is a file of rows and no graph

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How parts are to be exported."""

    dialect: str
    precision: dict[str, str]  # part name -> fp32, or levers joined by +
    dynamic_batch: bool
    simplify: Callable[[ir.Model], ir.Model] | None = simplify.simplify  # None: not asked for
    clips: calibration.Clips | None = None  # for levers that must know what is heard
    slots: Shares = field(default_factory=dict)  # modules that take an adapter at run time
    golden: bool = False  # whether vectors of each part are kept beside it


@dataclass(frozen=True)
class Exported:
    """A part in the bundle, and what the table at the end shows of it."""

    part: Part
    seconds: float


def export(
    name: str, checkpoint: Checkpoint, settings: Settings, bundle: Bundle, say: Say
) -> Exported:
    """Export one part into the bundle.

    Raises:
        ExportFailed: a float32 part is off by more than 1e-3, or another by more than the bound of
            its levers.
    """
    start = time.perf_counter()
    give_back()  # what the part before left
    part = (
        _table(checkpoint, settings, bundle)
        if name == TABLE
        else _graph(name, checkpoint, settings, bundle, say)
    )
    return Exported(part, time.perf_counter() - start)


def _table(checkpoint: Checkpoint, settings: Settings, bundle: Bundle) -> Part:
    precision = settings.precision[TABLE]
    path = bundle.folder / f"{TABLE}.npy"
    pulled = precisions.pull(precision)
    codes, bound = pulled.table, pulled.bound("table")
    requested = codes.dtype if codes else ""
    dtype, files, measured = embedding_table.write(checkpoint.embedding(), path, requested)
    listed = tuple(bundle.file(file) for file in files)
    vectors = None
    if settings.golden:
        rows = open_table(bundle.folder, listed)
        vectors = golden.table(rows, checkpoint.embedding(), TABLE, bundle)
    return Part(
        name=TABLE,
        role="table",
        files=listed,
        golden=vectors,
        precision=precision,
        storage=Storage(codes or Codes(dtype), bound=bound),
        measured={
            "stored": dtype,
            "parity": _judged(TABLE, precision, measured, bound),
        },
    )


def _graph(name: str, checkpoint: Checkpoint, settings: Settings, bundle: Bundle, say: Say) -> Part:
    say("loading")
    part = checkpoint.part(name, settings.dialect).eval()
    shared = settings.slots.get(name, {})
    groups = slots.put(part, name, shared) if shared else {}
    precision = PLAIN if part.exact else settings.precision[name]
    pulled = precisions.pull(precision)
    if groups and pulled.shrinks(part.role):
        raise BadOption(f"part {name} cannot be pruned and keep slots for adapters; do one of both")
    embeds = partial(calibration.embeds, checkpoint)
    pulled.prepare(part, embeds)
    heard, truth, ports = _Heard(), None, dict[str, Tensor]()
    if pulled.listens(part.role) or settings.clips and pulled.hears(part.role):
        say("listening")
        heard = _listen(name, part, checkpoint, settings)
    if pulled.shrinks(part.role):
        truth = _asked(part, settings, bundle, heard, say)
        say("pruning")
        ports, found = pulled.shrink(part, embeds, heard.hear)
        pulled.prepare(part, embeds)  # which asking undid, and which is of what is left
        heard.findings.update(found)
    if heard.hear:
        heard.findings.update(pulled.calibrate(part, heard.hear))
    inputs = graph.fixed(part.inputs, settings.dynamic_batch)
    outputs = graph.fixed(part.outputs, settings.dynamic_batch)
    say("tracing")
    give_back()
    traced = graph.trace(part, settings.dynamic_batch)
    slots.check(part, name)
    weights = sum(weight.numel() for weight in part.parameters())
    if truth is None:
        truth = _asked(part, settings, bundle, heard, say)
    else:
        part.keep_state_in("float32")
        truth.shrunk(part, ports)
    give_back()
    work = _Work(truth, part.role, inputs, bundle.folder / f"{name}.onnx", pulled, say)
    kept = _leanest(traced, work, settings)
    judged = _judged(name, precision, kept.parity, pulled.bound(part.role))
    ids: dict[str, Any] = {}
    if heard.by:
        say("answering")
        said = heard.by.answers(kept.files[0], inputs, outputs)
        ids = {"answers": answering.compared(heard.by.said, said)}
    ear = part.role == "encoder" and pulled.levers
    if ear and (by := numbering.reader(part, checkpoint, settings.dialect)):
        ids = {"changed": numbering.changed(kept.files[0], truth, inputs, by)}
    return Part(
        name=name,
        role=part.role,
        files=tuple(bundle.file(file) for file in kept.files),
        inputs=inputs,
        outputs=outputs,
        spans=part.spans,
        precision=precision,
        storage=pulled.storage(part.role),
        opset=part.opset,
        dialect=settings.dialect if part.role == "decoder" else "",
        chunk_rows=part.chunk_rows,
        pieces=part.pieces,
        nodes=sum(summary.read(kept.files[0]).nodes.values()),
        simplified=kept.verdict,
        measured={"parity": judged, "weights": weights} | heard.findings | ids | part.facts,
        slots=slots.named(groups, shared),
        golden=golden.write(kept.golden, name, bundle) if settings.golden else None,
    )


@dataclass(frozen=True)
class _Heard:
    """What came of the clips: what levers found out, and feeds to compare on."""

    hear: Hear | None = None  # None: there are none
    findings: dict[str, Any] = field(default_factory=dict)
    feeds: list[dict[str, Any]] = field(default_factory=list)
    by: answering.Audience | None = None  # a decoder's, which answered them


def _listen(name: str, part: Wrapper, checkpoint: Checkpoint, settings: Settings) -> _Heard:
    """Clips to calibrate levers with.

    Raises:
        BadOption: there are none.
    """
    if settings.clips is None:
        raise calibration.wanted(name, settings.precision[name])
    kind = answering.Audience if part.role == "decoder" else calibration.Audience
    audience = kind(checkpoint, settings.dialect, name, part, settings.clips)
    clips = {"clips": len(settings.clips.paths), "seconds": round(settings.clips.seconds, 1)}
    feeds = list(calibration.widened(audience.feeds(), settings.dynamic_batch))
    by = audience if isinstance(audience, answering.Audience) else None
    return _Heard(audience.hear, {"calibrated": clips}, feeds, by)


def _asked(
    part: Wrapper, settings: Settings, bundle: Bundle, heard: _Heard, say: Say
) -> parity.Truth:
    """What the part says, its state kept in float32 from now on."""
    scales = part.state_scales
    part.keep_state_in("float32")
    say("asking the original")
    return parity.Truth(part, settings.dynamic_batch, scales, bundle.folder, heard.feeds)


def _judged(name: str, precision: str, measured: parity.Parity, bound: float) -> dict[str, Any]:
    """What was measured, the bound and the verdict, for the manifest.

    Raises:
        ExportFailed: the part is beyond the bound.
    """
    verdict = measured.verdict(bound)
    if verdict == parity.BEYOND:
        off = (
            f"part {name} is off by {measured.worst_abs:.1e} (relative {measured.worst_rel:.1e}) "
            f"in {measured.output}"
        )
        if not bound:
            raise ExportFailed(f"{off}; a float32 graph must be within {parity.FP32_TOLERANCE:g}")
        raise ExportFailed(
            f"{off}, {measured.rms:.2g} as root mean square, and {precision} may cost {bound:g}; "
            f"export this part more finely: --precision {precision},{name}=fp32"
        )
    return measured.to_json() | {"bound": bound, "verdict": verdict}


@dataclass(frozen=True)
class _Work:
    """A traced part on its way into the file `path`."""

    truth: parity.Truth
    role: str
    inputs: dict[str, Port]
    path: Path
    pulled: precisions.Pulled
    say: Say

    def save(self, model: ir.Model, verdict: str) -> _Saved:
        if self.pulled.levers:
            model = self.pulled.rewrite(model.clone(), self.role)
        self.say("writing")
        files = graph.save(model, self.path, self.role)
        give_back()
        self.say("comparing")
        kept: list[golden.Taken] = []
        measured = parity.measure(self.path, self.truth, self.inputs, kept.append)
        return _Saved(files, verdict, measured, kept[0])


@dataclass(frozen=True)
class _Saved:
    """A graph in its file, whether it was simplified, and how right it is."""

    files: list[Path]
    verdict: str
    parity: parity.Parity
    golden: golden.Taken


def _leanest(traced: ir.Model, work: _Work, settings: Settings) -> _Saved:
    """The simplified graph where it is leaner and as right as the traced one, else the traced."""
    if settings.simplify is None:
        return work.save(traced, "no: not asked for")
    before = simplify.node_count(traced)
    work.say("simplifying")
    try:
        leaner = settings.simplify(traced)
        after = simplify.node_count(leaner)
        verdict = f"yes: {before} nodes -> {after}"
        saved = work.save(leaner, verdict) if after < before else None
    except Exception as error:  # onnxsim, protobuf and the backend raise whatever they like
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        work.say(f"kept unsimplified: {reason}")
        return work.save(traced, f"no: {reason}")
    if saved is None:
        return work.save(traced, "no: nothing to take away")
    if saved.parity.good or saved.parity.rms <= work.pulled.bound(work.role):
        return saved
    aside = {file: file.rename(file.with_name(f".{file.name}.leaner")) for file in saved.files}
    plain = work.save(traced, "no: onnxsim made it less exact")
    # Where a lever loses much by itself, the simplified graph may not lose more.
    if plain.parity.good or saved.parity.worst_abs > 1.1 * plain.parity.worst_abs:
        work.say(f"kept unsimplified: off by {saved.parity.worst_abs:.1e} after onnxsim")
        for leaner_file in aside.values():
            leaner_file.unlink()
        return plain
    for file in plain.files:
        file.unlink()
    for file, leaner_file in aside.items():
        leaner_file.rename(file)
    return saved
