"""One part from checkpoint to files: load, lever, trace, simplify, save, compare."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from alm import graphfile, pick
from alm.errors import ExportFailed
from alm.manifest import Part
from exporters import graph, levers, parity, simplify, table
from exporters.bundle import Bundle
from wrappers import Checkpoint, Wrapper

TABLE = "embed"  # the part that is a file of rows and no graph

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How parts are to be exported."""

    dialect: str
    precision: dict[str, str]  # part name -> fp32 or a lever's name
    dynamic_batch: bool
    simplify: Callable[[ir.Model], ir.Model] | None = simplify.simplify  # None: not asked for


@dataclass(frozen=True)
class Exported:
    """A part in the bundle, and what the table at the end says of it."""

    part: Part
    seconds: float


def precisions() -> list[str]:
    """fp32, and every lever."""
    return ["fp32", *pick.names(levers)]


def export(
    name: str, checkpoint: Checkpoint, settings: Settings, bundle: Bundle, say: Say
) -> Exported:
    """Export one part into the bundle.

    Raises:
        ExportFailed: a float32 part is off by more than 1e-3, or any part gives garbage.
    """
    start = time.perf_counter()
    made = (
        _table(checkpoint, settings, bundle)
        if name == TABLE
        else _graph(name, checkpoint, settings, bundle, say)
    )
    return Exported(made, time.perf_counter() - start)


def _table(checkpoint: Checkpoint, settings: Settings, bundle: Bundle) -> Part:
    lever = _lever(settings.precision[TABLE])
    path = bundle.folder / f"{TABLE}.npy"
    rows = checkpoint.embedding()
    dtype = table.write(rows, path, lever.table_dtype if lever else "")
    stored = f"{settings.precision[TABLE]}, stored as {dtype}" if not lever else dtype
    return Part(
        name=TABLE,
        role="table",
        files=(bundle.file(path),),
        precision=settings.precision[TABLE],
        measured={"stored": stored},
    )


def _lever(precision: str) -> Any:
    if precision == "fp32":
        return None
    return pick.pick(levers, precision, "precision").Lever()


def _graph(name: str, checkpoint: Checkpoint, settings: Settings, bundle: Bundle, say: Say) -> Part:
    load, precision = checkpoint.parts[name], settings.precision[name]
    say("loading")
    truth = part = load(settings.dialect).eval()
    lever = _lever(precision)
    if lever:
        say(precision)  # the untouched module stays, to measure the loss against
        part = lever.pull(load(settings.dialect).eval())
    say("tracing")
    kept = _leanest(_Work(part, truth, bundle.folder / f"{name}.onnx", settings, say))
    measured = kept.parity
    if precision == "fp32" and not measured.good:
        raise ExportFailed(
            f"part {name} is off by {measured.worst_abs:.1e} (relative {measured.worst_rel:.1e}) "
            f"in {measured.output}; a float32 graph must be within {parity.FP32_TOLERANCE:g}"
        )
    return Part(
        name=name,
        role=part.role,
        files=tuple(bundle.file(file) for file in kept.files),
        inputs=graph.fixed(part.inputs, settings.dynamic_batch),
        outputs=graph.fixed(part.outputs, settings.dynamic_batch),
        spans=part.spans,
        precision=precision,
        opset=part.opset,
        dialect=settings.dialect if part.role == "decoder" else "",
        nodes=sum(graphfile.read(kept.files[0]).nodes.values()),
        simplified=kept.verdict,
        measured={"parity": measured.to_json()} | part.facts,
    )


@dataclass(frozen=True)
class _Work:
    """A part on its way into the file `path`."""

    part: Wrapper
    truth: Wrapper  # the same in float32, untouched
    path: Path
    settings: Settings
    say: Say

    def save(self, model: ir.Model, verdict: str) -> _Saved:
        files = graph.save(model, self.path, self.part.role)
        self.say("comparing")
        batch = self.settings.dynamic_batch
        inputs = graph.fixed(self.part.inputs, batch)
        return _Saved(files, verdict, parity.measure(self.path, self.truth, inputs, batch))


@dataclass(frozen=True)
class _Saved:
    """A graph in its file, whether it was simplified, and how right it is."""

    files: list[Path]
    verdict: str
    parity: parity.Parity


def _leanest(work: _Work) -> _Saved:
    """The simplified graph where it is leaner and as right as the traced one, else the traced."""
    traced = graph.trace(work.part, work.settings.dynamic_batch)
    if work.settings.simplify is None:
        return work.save(traced, "no: not asked for")
    before = simplify.node_count(traced)
    work.say("simplifying")
    try:
        leaner = work.settings.simplify(traced)
        after = simplify.node_count(leaner)
        verdict = f"yes: {before} nodes -> {after}"
        saved = work.save(leaner, verdict) if after < before else None
    except Exception as error:  # onnxsim, protobuf and the engine raise whatever they like
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        work.say(f"kept unsimplified: {reason}")
        return work.save(traced, f"no: {reason}")
    if saved is None:
        return work.save(traced, "no: nothing to take away")
    if saved.parity.good:
        return saved
    plain = work.save(traced, "no: onnxsim made it less exact")
    # A lever has a loss of its own; then the simplified graph may not lose more.
    if plain.parity.good or saved.parity.worst_abs > 1.1 * plain.parity.worst_abs:
        work.say(f"kept unsimplified: off by {saved.parity.worst_abs:.1e} after onnxsim")
        return plain
    return replace(saved, files=graph.save(leaner, work.path, work.part.role))
