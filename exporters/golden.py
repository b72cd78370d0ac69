"""Golden vectors: what the original gives for small inputs, written beside the graphs.

The formats are those of `alm.golden`. All of a model's are at most 1 % of its bytes, or 2 MB.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from alm import load
from alm.artifacts.embedding_table import Table
from alm.artifacts.manifest import File, Manifest
from alm.errors import AlmError, BadOption
from alm.golden import runs, vectors
from alm.golden.vectors import Wanted
from alm.host import atomic
from alm.ports import CACHE_OUT, Port, is_carried
from exporters import answering, calibration
from exporters.bundle import Bundle, listed
from wrappers import Checkpoint
from wrappers.checkpoint.weights.memory import give_back

FOLDER = "golden"
KEPT_BYTES = 48 * 2**10  # of a part's inputs; and of its outputs so many
GIVEN_BYTES = 96 * 2**10
MOST_TOKENS = 16  # of an answer
PRIME = 16381  # no axis is as long, so that rows of a repeated piece differ
# Beside the model's own prompts: digits, scripts, white space, signs.
TEXTS = (
    "Please transcribe the audio, word for word.",
    "0123456789 3.14159 1,000,000",
    "Grüße aus Zürich; ça va? 你好,世界 привет 🙂",
    "  two  spaces\n\tand a tab ",
    "x = {'a': [1, 2]}  # <s> </s> <|im_start|> [INST]",
)


NOTHING = runs.Runs()


@dataclass(frozen=True)
class Taken:
    """What one comparison of a part's graph with the original left."""

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, Wanted]


def period(count: int) -> int:
    """How many values of each of so many inputs are kept."""
    most = KEPT_BYTES // (2 * max(count, 1))
    return max(1, min(PRIME, most - 1 if most % 2 == 0 else most))  # odd: axes are even


def repeatable(example: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Feeds of which little is kept: values of float16, the first of which come again and again."""
    most, made = period(len(example)), dict(example)
    for name, array in example.items():
        if array.dtype.kind == "f":
            flat = array.reshape(-1)[:most].astype(np.float16)
            made[name] = np.resize(flat, array.shape).astype(array.dtype)
        elif is_carried(name):  # of integers
            made[name] = np.resize(array.reshape(-1)[:most], array.shape)
    return made


def _kept(array: np.ndarray, length: int) -> np.ndarray:
    """The first values of an input: so many, if the others repeat them, else all."""
    flat = array.reshape(-1)
    if flat.dtype.kind == "f" and (flat.astype(np.float16) == flat).all():
        flat = flat.astype(np.float16)
    if length < len(flat) and (np.resize(flat[:length], len(flat)) == flat).all():
        return flat[:length]
    return flat


def _stride(array: np.ndarray, most: int) -> int:
    """So large that at most so many values are kept, and no divisor of an axis."""
    stride = -(-array.size // most)
    while stride > 1 and any(size > 1 and math.gcd(stride, size) > 1 for size in array.shape):
        stride += 1
    return max(stride, 1)


def take(
    fed: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
    got: Mapping[str, np.ndarray],
    ports: Mapping[str, Port],
) -> Taken:
    """Some of what the original gave, and how far its graph was off on all of it."""
    caches = [name for name in wanted if name.startswith(CACHE_OUT)]
    outputs: dict[str, Wanted] = {}
    for name, whole in wanted.items():
        alike = len(caches) if name in caches else len(wanted) - len(caches)
        share = GIVEN_BYTES // (4 * (2 if caches else 1) * alike)
        want = vectors.filled(whole, ports[name], fed)
        worst, rms = vectors.errors(vectors.filled(got[name], ports[name], fed), want)
        stride = _stride(want, max(share, 1))
        values = np.ascontiguousarray(want.reshape(-1)[::stride], np.float32)
        outputs[name] = Wanted(want.shape, stride, values, worst, rms)
    return Taken(dict(fed), outputs)


def write(taken: Taken, name: str, bundle: Bundle) -> File:
    """The part's file, as the manifest lists it."""
    length = period(len(taken.inputs))
    kept = {n: _kept(array, length) for n, array in taken.inputs.items()}
    path = bundle.folder / FOLDER / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(vectors.encode(taken.inputs, taken.outputs, kept))
    return bundle.file(path)


def table(rows: Table, original: Tensor, name: str, bundle: Bundle) -> File:
    """The embedding table's file, of this name: some ids, and the original's rows."""
    count = len(original)
    ids = np.unique(np.linspace(0, count - 1, min(count, 64)).astype(np.int64))
    fed = {"ids": ids}
    want, ports = {"rows": original[ids].float().numpy()}, {"rows": Port("float32", ("ids", 1))}
    return write(take(fed, want, {"rows": rows(ids)}, ports), name, bundle)


def asked(
    checkpoint: Checkpoint,
    dialect: str,
    clips: Sequence[Path],
    bundle: Bundle,
    say: Callable[[str], None],
) -> runs.Runs:
    """What the original answers to the clips, a task each in turn; and the tokenizer's ids.

    A model that hears a stream, or is asked nothing, has no runs.
    """
    facts = checkpoint.facts
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json)
    texts = (*dict.fromkeys((*facts.prompt.tasks.values(), *TEXTS)),)[: 16 + len(TEXTS)]
    made = tuple(
        runs.Text(text, tuple(tokenizer.encode(text, add_special_tokens=False).ids))
        for text in texts
    )
    (name,) = (n for n, role in checkpoint.roles.items() if role == "decoder")
    heard = calibration.Clips(bundle.folder, tuple(clips), 0.0)
    say("asking the original about whole clips")
    try:
        part = checkpoint.part(name, dialect).eval()
        asked = answering.Audience(checkpoint, dialect, name, part, heard, most=MOST_TOKENS)
        said = [answer for answer, _ in asked.original(heard.paths)]
    except BadOption:
        return runs.Runs((), made)
    except AlmError as error:
        say(f"no whole runs are kept for alm doctor: {error}")
        return runs.Runs((), made)
    finally:
        give_back()  # the original's weights
    tasks, found = list(facts.prompt.tasks), []
    for number, (path, answer) in enumerate(zip(clips, said, strict=True)):
        kept = bundle.folder / FOLDER / path.name
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, kept)
        ids = answer.ids if answer.end is None else (*answer.ids, answer.end)
        found.append(runs.Run(f"{FOLDER}/{path.name}", tasks[number % len(tasks)], ids))
    return runs.Runs(tuple(found), made)


def kept(bundle: Bundle) -> runs.Runs:
    """What the original said when all parts were exported at once: it stands while some change."""
    if bundle.old is None or not bundle.old.golden:
        return NOTHING
    try:
        found = runs.read(bundle.out, bundle.old)
        for run in found.runs:
            clip = runs.clip(bundle.out, bundle.old, run)
            (bundle.folder / FOLDER).mkdir(exist_ok=True)
            (bundle.folder / run.clip).write_bytes(clip)
    except AlmError:  # of a folder that is damaged, nothing is taken over
        return NOTHING
    return found


def finish(out: Path, found: runs.Runs, manifest: Manifest, say: Callable[[str], None]) -> None:
    """Follow the original's answers with what was exported, and list the runs in the manifest.

    The folder has been published; the runs come into it before the manifest names them.
    """
    if found == NOTHING:
        return
    measured: list[runs.Run] = []
    try:
        if found.runs:
            parts = load(out, provider="cpu", audio_cache=0).parts
            for run in found.runs:
                followed = runs.follow(parts, out / run.clip, run)
                measured.append(replace(run, gap=followed.gap, length=followed.length))
    except AlmError as error:
        say(f"no whole runs are kept for alm doctor: {error}")
    text = json.dumps(replace(found, runs=tuple(measured)).to_json(), ensure_ascii=False)
    atomic.write(out / FOLDER, Path(runs.NAME).name, (text + "\n").encode())
    names = (runs.NAME, *dict.fromkeys(run.clip for run in measured))
    whole = replace(manifest, golden=tuple(listed(out, name) for name in names))
    whole.save(out)
