"""alm build: graphs become engines of this machine's TensorRT, beside the graphs."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alm.artifacts import verify
from alm.artifacts.engine_files import Engine, Maker, fingerprint
from alm.artifacts.manifest import Manifest, Part
from alm.artifacts.manifest import load as load_manifest
from alm.errors import AlmError, BadArtifacts, BadOption, UnknownName
from alm.host import archive, atomic, containment, processor
from alm.onnxfile import summary
from alm.precision import PLAIN, Levers, Wanted, any_backend, choose
from alm.tensorrt import api
from alm.tensorrt.build_job import Job, built
from alm.tensorrt.profiles import Sizes, fit, words

Say = Callable[[str], None]

# Of the bytes of a part: its weights are read, laid out anew, serialized and copied. Measured with
# TensorRT-RTX 1.7: 2.9 times 384 MiB of float32 or 192 of float16, and 230 MiB besides.
COPIES = 3.2
SHARE = 0.9  # of the memory that is free: the rest is for whatever else the machine does
GIB = 2**30
PATIENCE = 1.0  # seconds between two lines of progress
FOREIGN = "com.microsoft::"


@dataclass(frozen=True)
class Settings:
    """What to build, and how."""

    backend: str = "tensorrt"
    parts: tuple[str, ...] = ()  # names; empty for all
    sizes: Sizes | None = Sizes()  # None: as the engine that there is
    workspace: int = 0  # bytes; 0: TensorRT's choice
    memory: int = 0  # bytes that the build may take; 0: what is free
    force: bool = False  # build what is up to date as well


def jobs(folder: Path, manifest: Manifest, settings: Settings) -> list[Job]:
    """What is to be built; every graph is read and nothing else is touched.

    Raises:
        UnknownName: no such part or backend.
        BadArtifacts: a graph that TensorRT cannot read, with the export that it can.
        BadOption: sizes that the model does not have.
    """
    archive.only_folder(folder, "engines are kept in a folder")
    base = api.flavour(settings.backend).fixed_bytes
    known = [part.name for part in manifest.parts if part.role != "table"]
    for name in settings.parts:
        if name not in known:
            raise UnknownName(f"unknown part {name!r}; there is: {', '.join(known)}")
    planned: list[Job] = []
    for part in manifest.parts:
        if part.role == "table" or (settings.parts and part.name not in settings.parts):
            continue
        graph = containment.contained(folder, part.files[0].name)
        _refuse_foreign(part, graph, manifest.levers)
        old = manifest.engine(part.name, settings.backend)
        if old is not None and settings.sizes is None and _takes(old, part):
            ranges, fixed = old.profiles, old.fixed
        else:
            ranges, fixed = fit(part, settings.sizes or Sizes())
        target = f"{Path(part.files[0].name).with_suffix('')}.{settings.backend}.engine"
        planned.append(Job(part, graph, target, ranges, fixed, base + int(COPIES * part.bytes)))
    return planned


def _takes(old: Engine, part: Part) -> bool:
    """Whether an engine's profiles are of the inputs that the part has."""
    ports = {name: port.fix(**old.fixed) for name, port in part.inputs.items()}
    moving = {n for n, port in ports.items() if any(isinstance(a, str) for a in port.axes)}
    return all(set(profile) == moving for profile in old.profiles)


def _refuse_foreign(part: Part, graph: Path, levers: Levers) -> None:
    foreign = sorted(name for name in summary.read(graph).nodes if name.startswith(FOREIGN))
    if foreign:
        raise BadArtifacts(
            f"part {part.name} holds {', '.join(foreign)}, which ONNX Runtime alone reads; export "
            "it for TensorRT with: alm-export --dialect standard --precision "
            f"{_in_bits(16, levers)} (or --dialect decomposed for TensorRT before 10.15)"
        )


def command(folder: Path, job: Job, settings: Settings) -> str:
    """The same build as a command of TensorRT's own tool, over several lines.

    Where the graph must be changed for TensorRT it names the changed one: see `graphs`.
    """
    same = job.content() == job.graph.read_bytes()
    graph = job.graph.name if same else _changed(job.graph.name)
    lines = [
        f"{api.flavour(settings.backend).tool} --onnx={shlex.quote(str(folder / graph))}",
        f"--saveEngine={shlex.quote(str(folder / job.target))}",
        "--skipInference",
    ]
    if settings.backend == "tensorrt":
        lines.append("--stronglyTyped")  # always so in 11, which takes the flag and ignores it
    if settings.workspace:
        lines.append(f"--memPoolSize=workspace:{settings.workspace // 2**20}M")
    for number, profile in enumerate(job.profiles):
        lines += [f"--profile={number}"] if len(job.profiles) > 1 else []
        lines += [shlex.quote(word) for word in words(profile)]
    return " \\\n    ".join(lines)


def build(folder: Path, settings: Settings, say: Say, show: Say) -> list[Engine]:
    """Build what is not up to date, one part after another; each counts as soon as it is done.

    A part has a process of its own: if TensorRT crashes there, the engines that were made stay.

    Args:
        folder: artifacts whose graphs TensorRT can read.
        settings: what to build, and how.
        say: called with the progress, and with what it does not do.
        show: called with what was made, and with the equivalent commands.

    Returns:
        The engines of these parts, new ones and those that were up to date.

    Raises:
        MissingPackage: TensorRT is not installed, or it needs a GPU and there is none.
        BadOption: the memory does not suffice; nothing was built then.
        BadArtifacts, MissingFile: a graph that is not what the manifest says, or not for TensorRT,
            or TensorRT crashed or was ended.
    """
    manifest = load_manifest(folder)
    todo = jobs(folder, manifest, settings)
    maker = api.maker(settings.backend)
    fresh = {job.part.name: _up_to_date(folder, manifest, job, maker) for job in todo}
    waiting = [job for job in todo if settings.force or fresh[job.part.name] is None]
    _refuse_too_little(waiting, settings.memory or free_memory(), manifest.levers)
    engines: list[Engine] = []
    for number, job in enumerate(todo, 1):
        show(command(folder, job, settings))
        name, old = job.part.name, fresh[job.part.name]
        if job not in waiting and old is not None:
            show(f"{name}: up to date, {_size(old.file.bytes)}\n")
            engines.append(old)
            continue
        progress = _prefixed(say, f"[{number}/{len(todo)}] {name}")
        engine = built(folder, job, maker, api.Limits(settings.workspace), progress)
        kept = (
            e for e in manifest.engines if (e.part, e.maker.backend) != (name, settings.backend)
        )
        manifest = manifest.with_engines((*kept, engine))
        manifest.save(folder)
        engines.append(engine)
        show(f"{name}: {_size(engine.file.bytes)} in {engine.seconds:.1f} s, {maker}\n")
    return engines


def dry_run(folder: Path, settings: Settings, show: Say, write: bool = False) -> None:
    """Show what would be done; TensorRT need not be here.

    Args:
        folder, settings, show: see `build`.
        write: the graphs that the commands name are written, where they are not there already.
    """
    for job in jobs(folder, load_manifest(folder), settings):
        text = command(folder, job, settings)
        show(text)
        changed = folder / _changed(job.graph.name)
        if str(changed) in text and write:
            atomic.write(folder, _changed(job.graph.name), job.content())
        elif str(changed) in text:
            show(f"# {changed.name} is written by: alm build {folder} --graphs")
        show(f"{job.part.name}: a build takes about {_size(job.memory)} of memory\n")


def _changed(graph: str) -> str:
    return f"{Path(graph).with_suffix('')}.tensorrt.onnx"


def check(engine: Engine, part: Part, maker: Maker) -> str:
    """Why this engine cannot be used here, in words; "" when it can. Its file is not looked at."""
    if engine.graph != fingerprint(part.files):
        return f"part {part.name} was exported anew after its engine was built"
    if engine.maker != maker:
        return f"the engine of part {part.name} is of {engine.maker}, and this is {maker}"
    return ""


def free_memory() -> int:
    """Bytes that a process may still take: of the machine and of its control group."""
    available = processor.available()
    room = available if available is not None else 2**62
    try:
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        now = int((group / "memory.current").read_text())
        return min(room, int(most) - now) if most != "max" else room
    except (OSError, ValueError):
        return room


def _in_bits(bits: int, levers: Levers) -> str:
    """The precision for any engine that stores a weight in so many bits."""
    return choose(levers, "decoder", Wanted(bits), any_backend) or PLAIN


def _refuse_too_little(waiting: list[Job], room: int, levers: Levers) -> None:
    worst = max(waiting, key=lambda job: job.memory, default=None)
    if worst is not None and worst.memory > SHARE * room:
        raise BadOption(
            f"building part {worst.part.name} takes about {_size(worst.memory)} of memory and "
            f"{_size(int(SHARE * room))} may be taken; close other programs, add swap, export it "
            f"with fewer bits (--precision {_in_bits(4, levers)}), or say --memory GIB to try all "
            "the same"
        )


def _up_to_date(folder: Path, manifest: Manifest, job: Job, maker: Maker) -> Engine | None:
    engine = manifest.engine(job.part.name, maker.backend)
    if engine is None or check(engine, job.part, maker):
        return None
    if (engine.profiles, engine.fixed) != (job.profiles, job.fixed):
        return None
    try:
        verify.check_file(folder, engine.file.name, engine.file.bytes, engine.file.sha256)
    except AlmError:
        return None
    return engine


def _prefixed(say: Say, prefix: str) -> Say:
    """Progress, not more often than a person reads."""
    last = -PATIENCE

    def report(progress: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PATIENCE:
            last = time.monotonic()
            say(f"{prefix}: {progress}")

    return report


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.2f} MiB"
