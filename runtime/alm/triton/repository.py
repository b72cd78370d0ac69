"""An exported folder becomes a model repository of Triton, written beside its place and renamed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from alm.artifacts import manifest as manifests
from alm.artifacts import verify
from alm.artifacts.manifest import File, Manifest, Part
from alm.errors import AlmError, BadArtifacts, BadOption
from alm.host import archive, atomic, containment
from alm.onnxfile import summary
from alm.parsing import printable
from alm.triton import ensemble, onnx_models, pbtxt, python_config
from alm.triton.settings import Settings

MARK = "alm-triton.json"  # in the repository: what was written, so that nothing else is replaced
FORMAT = "alm-edge triton repository"
CONFIG, VERSION = "config.pbtxt", "1"
# Triton wants a folder of a version even where nothing is in it, and neither git nor an object
# store keeps an empty one.
EMPTY = ("README", "An ensemble has no files of its own; Triton wants this folder.\n")
CHUNK = 2**22  # bytes copied at a time
PATIENCE = 1.0  # seconds between two lines of progress
MOST_MARK = 2**22  # bytes

Say = Callable[[str], None]


@dataclass
class Plan:
    """What a repository will hold, by names below it."""

    copies: list[tuple[File, str]] = field(default_factory=list)  # of the folder -> of ours
    texts: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)  # model -> what it is, in words
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Every file, without the mark."""
        return sorted([name for _, name in self.copies] + list(self.texts))

    @property
    def bytes(self) -> int:
        """Of what is copied."""
        return sum(file.bytes for file, _ in self.copies)


def pack(folder: Path, out: Path, settings: Settings, say: Say) -> Plan:
    """Write the repository `out` of an exported `folder`, and give what is in it.

    Raises:
        MissingFile, BadArtifacts: something of the folder is not what its manifest says; or `out`
            cannot be written.
        BadOption: `out` holds what is not ours, or cannot be linked to, or is too small.
    """
    archive.only_folder(folder, "a repository of Triton's is made of a folder's files")
    manifest = manifests.load(folder)
    _check_whole(manifest, folder)
    made = plan(folder, manifest, settings)
    old = _existing(out, folder)
    site = atomic.new_folder(out.absolute())
    try:
        if not settings.link:
            _check_room(site, made.bytes)
        _fill(folder, site, made, settings, say)
        _swap(site, out, old)
    except OSError as error:
        if isinstance(error, AlmError):
            raise
        raise BadArtifacts(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(site, ignore_errors=True)
    return made


def plan(folder: Path, manifest: Manifest, settings: Settings) -> Plan:
    """What will be written; only the structure of graphs is read."""
    made, why = Plan(), ensemble.why_not(manifest)
    inner = f"{settings.name}/{VERSION}/{python_config.FOLDER}"
    kept = [part for part in manifest.parts if why or part.role in ("table", "decoder")]
    if why:
        made.notes.append(
            f"{why}, which no ensemble can do: {settings.name} runs all parts by itself"
        )
    else:
        for part in ensemble.front(manifest):
            _add_part(made, folder, part, settings)
        config = ensemble.config(manifest, settings)
        made.texts[f"{settings.ensemble}/{CONFIG}"] = pbtxt.text(config)
        made.texts[f"{settings.ensemble}/{VERSION}/{EMPTY[0]}"] = EMPTY[1]
        made.models[settings.ensemble] = "ensemble: samples to embeddings"
    if names := ", ".join(sorted({engine.part for engine in manifest.engines})):
        made.notes.append(
            f"TensorRT's engines of {names} stay behind: they run with the TensorRT that built "
            "them, which is another in each of Triton's images"
        )
    files = [file for part in kept for file in part.files]
    files += [file for pair in manifest.adapters.values() for file in pair]
    files += [manifest.tokenizer] if manifest.tokenizer else []
    made.copies += [(file, f"{inner}/{file.name}") for file in files]
    plain = manifest.with_engines(()).without_golden().to_json()
    made.texts[f"{inner}/{manifests.NAME}"] = json.dumps(plain, indent=1) + "\n"
    model = python_config.config(settings, not why)
    made.texts[f"{settings.name}/{CONFIG}"] = pbtxt.text(model)
    source = Path(__file__).with_name("python_model.py")
    made.texts[f"{settings.name}/{VERSION}/model.py"] = source.read_text("utf-8")
    made.models[settings.name] = "python: answers, " + (
        "in pieces as they come" if settings.stream else "each in one piece"
    )
    return made


def _add_part(made: Plan, folder: Path, part: Part, settings: Settings) -> None:
    """A graph with its external data, whose names stay as the graph has them."""
    path = containment.contained(folder, part.files[0].name)
    graph = summary.read(path)
    verify.check_graph(folder, graph, part.files[0].name, {file.name for file in part.files})
    name, home = settings.model(part), PurePosixPath(part.files[0].name).parent
    made.texts[f"{name}/{CONFIG}"] = pbtxt.text(onnx_models.config(part, graph, settings))
    made.models[name] = f"onnxruntime: {part.role} {part.name}, {_needs(graph)}"
    for file in part.files:
        if home not in PurePosixPath(file.name).parents:
            raise BadArtifacts(f"{file.name!r} of part {part.name} lies outside its graph's folder")
        inner = PurePosixPath(file.name).relative_to(home)
        made.copies.append((file, f"{name}/{VERSION}/{inner}"))


def _needs(graph: summary.GraphFile) -> str:
    """What the server's ONNX Runtime must know: an older one refuses a newer file."""
    domains = {"": "opset", "com.microsoft": "contrib"}
    opsets = [f"{domains.get(name, name)} {opset}" for name, opset in sorted(graph.opsets.items())]
    return ", ".join([f"IR {graph.ir_version}", *opsets])


def _check_whole(manifest: Manifest, folder: Path) -> None:
    manifests.check_run(manifest, folder)
    roles = {part.role for part in manifest.parts}
    if not {"table", "decoder"} <= roles or not manifest.tokenizer or not ensemble.front(manifest):
        names = ", ".join(part.name for part in manifest.parts) or "nothing"
        raise BadArtifacts(
            f"{folder} holds only {names}, not a whole model; export the rest with: "
            f"alm-export --model M --part all --out {folder}"
        )
    if manifest.facts.align.mark:
        raise BadArtifacts(f"{folder} is an aligner, which times words and answers nothing")


def _existing(out: Path, folder: Path) -> bool:
    """Whether there is a repository of ours to replace.

    Raises:
        BadOption: something else lies there.
    """
    place = out.resolve()
    if place in folder.resolve().parents or place == folder.resolve():
        raise BadOption(f"{out} holds the folder that is packed; give another place: --triton OUT")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise BadOption(f"{out} is no folder; give another place: --triton OUT")
    if not out.is_dir() or not any(out.iterdir()):
        return out.is_dir()
    listed: set[str] = set()
    try:
        mark = containment.contained(out, MARK)
        if mark.stat().st_size <= MOST_MARK:
            plain = json.loads(mark.read_bytes())
            listed = {MARK, *map(str, plain["files"])} if plain["format"] == FORMAT else set()
    except (AlmError, OSError, ValueError, KeyError, TypeError):
        pass
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if (path.is_symlink() or not path.is_dir()) and name not in listed:
            raise BadOption(
                f"{out} holds {printable(name, 100)}, which this command did not write; give "
                "another place: --triton OUT"
            )
    return True


def _check_room(site: Path, need: int) -> None:
    free = shutil.disk_usage(site).free
    if free < need:
        raise BadOption(
            f"the repository takes {need / 1e9:.1f} GB and {free / 1e9:.1f} are free where it is "
            "to lie; make room, or use hard links: --link"
        )


def _fill(folder: Path, site: Path, made: Plan, settings: Settings, say: Say) -> None:
    done, spoken = 0, time.monotonic()

    def progress(count: int) -> None:
        nonlocal done, spoken
        done += count
        if time.monotonic() - spoken > PATIENCE:
            spoken = time.monotonic()
            say(f"{done / 1e9:.2f} of {total / 1e9:.2f} GB read")

    # A copy is hashed and then read.
    total = made.bytes * (1 if settings.link else 2)
    for file, name in made.copies:
        if settings.link:
            _link(folder, file, site / name, progress)
        else:
            _copy(folder, file, site, name, progress)
    for name, text in made.texts.items():
        atomic.write(site, name, text.encode())
    mark = {"format": FORMAT, "version": 1, "models": made.models, "files": made.names}
    atomic.write(site, MARK, (json.dumps(mark, indent=1) + "\n").encode())


def _copy(folder: Path, file: File, site: Path, name: str, progress: Callable[[int], None]) -> None:
    """What was verified is what is written: the file stays open in between."""
    with verify.opened(folder, file, progress) as stream, atomic.replacing(site, name) as target:
        while chunk := stream.read(CHUNK):
            target.write(chunk)
            progress(len(chunk))


def _link(folder: Path, file: File, place: Path, progress: Callable[[int], None]) -> None:
    path = verify.check_file(folder, file.name, file.bytes, file.sha256, progress)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, place, follow_symlinks=False)
    except OSError as error:
        raise BadOption(
            f"{path} cannot be linked to there ({error.strerror or error}): hard links want one "
            "file system that has them; leave out --link to copy"
        ) from error


def _swap(site: Path, out: Path, old: bool) -> None:
    """The new folder takes the place of the old one, which comes back where that fails."""
    if not old:
        os.rename(site, out)
        return
    aside = atomic.new_folder(out.absolute())
    os.rename(out, aside)  # onto an empty folder
    try:
        os.rename(site, out)
    except OSError:
        os.rename(aside, out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def tree(names: Sequence[str]) -> list[str]:
    """File names as an indented tree, a line each."""
    lines: list[str] = []
    before: tuple[str, ...] = ()
    for name in sorted(names):
        parts = PurePosixPath(name).parts
        same = 0
        while same < min(len(before), len(parts) - 1) and before[same] == parts[same]:
            same += 1
        for depth in range(same, len(parts)):
            last = depth == len(parts) - 1
            lines.append("  " * depth + parts[depth] + ("" if last else "/"))
        before = parts[:-1]
    return lines
