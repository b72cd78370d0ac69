"""What this project makes and runs: its exporter's artifacts in `alm`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.beside.base import MADE, Decoder, Encoder, Peer, Place, log_mel, prompt_ids
from bench.beside.process import Ended, watched
from bench.beside.shapes import CAPACITY

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ""  # the one that this runs in
REQUIREMENTS: list[str] = []
TABLE = "embed"  # the part that is the embedding table
TIMEOUT = 4 * 3600.0  # seconds, for an export
CLIPS = ROOT / "demo"  # what levers are fitted to that want clips; weights are random all the same
RANDOM = "random weights have no low rank: its time says something, how far it is off does not"


def export_ours(
    folder: Path, out: Path, precision: str, dialect: str, part: str = "decoder"
) -> Ended:
    """Export a part of the checkpoint in `folder` in a process of its own, and watch its memory.

    Raises:
        RuntimeError: with the last line of what the exporter said.
    """
    from alm.precision import ROLES
    from exporters import precisions

    words = [sys.executable, "export.py", "--model", str(folder / "config.yaml"), "--part", part]
    words += ["--precision", precision, "--out", str(out), "--no-golden"]
    words += ["--dialect", dialect] if dialect else []
    if any(map(precisions.pull(precision).listens, ROLES)):
        words += ["--calibrate", str(CLIPS)]
    ended = watched(words, {}, TIMEOUT, ROOT)
    if ended.status:
        raise RuntimeError(f"export.py failed: {ended.last}")
    return ended


def prepare(product: str, place: Place, out: Path) -> None:
    """Export the part, and with a decoder the embedding table; only the part's cost is kept."""
    _, part, precision, dialect = product.split("-")
    ended = export_ours(place.model, out, precision, dialect, part)
    if part == "decoder":
        export_ours(place.model, out, "fp16", "", TABLE)
    _opened(out, part, place.threads)  # the files' hashes are remembered from here on
    (out / MADE).write_text(json.dumps({"cost": ended.cost}))


def _opened(folder: Path, name: str, threads: int) -> tuple[Any, Any]:
    """A part of the artifacts: its session, and what the manifest says of it."""
    from alm import backends
    from alm.artifacts import manifest
    from alm.session import BackendOptions

    part = manifest.load(folder).part(name)
    assert part is not None
    return backends.open_session(part, folder, BackendOptions("cpu", threads)), part


class _Ours(Peer):
    ours = True
    part: str

    def imports(self) -> None:
        import onnxruntime

        import alm.decoder.decoder  # noqa: F401

        self.engine = onnxruntime.__version__

    def versions(self) -> str:
        return f"alm here, onnxruntime {self.engine}"

    def files(self) -> list[Path]:
        from alm.artifacts import manifest

        parts = manifest.load(self.folder).parts
        return [self.folder / file.name for part in parts for file in part.files]


class OursDecoder(_Ours, Decoder):
    part = "decoder"
    note = "its size includes a float16 embedding table"

    def load(self) -> None:
        from alm.artifacts import manifest
        from alm.artifacts.embedding_table import Table
        from alm.decoder import decoder

        session, part = _opened(self.folder, self.part, self.place.threads)
        table = manifest.load(self.folder).part(TABLE)
        assert table is not None
        rows = Table(self.folder / table.files[0].name)
        self.decoder = decoder.Decoder(session, part, rows)

    def prefill(self, count: int) -> None:
        self.decoder.start(1, CAPACITY)
        embeds = self.decoder.table(prompt_ids(self.place, count))[None]
        self.last = int(self.decoder.feed(embeds, np.array([count])).argmax())

    def step(self) -> None:
        self.last = int(self.decoder.step(np.array([self.last])).argmax())

    @property
    def step_megabytes(self) -> float:
        from alm.artifacts import manifest

        part = manifest.load(self.folder).part(self.part)
        return part.bytes / 1e6 if part else 0.0


class OursEncoder(_Ours, Encoder):
    part = "whisper"

    def load(self) -> None:
        self.session, _ = _opened(self.folder, self.part, self.place.threads)
        self.feeds = {"log_mel": log_mel(self.place)}

    def encode(self) -> Any:
        return self.session.run(self.feeds)

    def heard(self) -> Any:
        (hidden,) = self.encode().values()
        return np.asarray(hidden, np.float32)


def variant(spec: str) -> type[Peer]:
    """The row that a word such as `decoder:int4` or `whisper:lowrank:size=0.4+int8:ort` names."""
    part, _, precision = spec.partition(":")
    before, _, last = precision.rpartition(":")
    dialect = last if before and "=" not in last else ""
    precision = before if dialect else precision
    bases = {"decoder": OursDecoder, "whisper": OursEncoder}
    if part not in bases or not precision:
        raise SystemExit(f"{spec!r} is no row of ours; say {'|'.join(bases)}:PRECISION[:DIALECT]")
    said = " ".join(filter(None, ("ours,", precision, dialect)))
    facts = dict(label=said, product=f"ours-{part}-{precision}-{dialect}")
    if "lowrank" in precision:
        facts["note"] = RANDOM
    return type(spec, (bases[part],), facts)


ROWS = [variant(each) for each in ("decoder:int4", "whisper:int8", "whisper:fp32")]
PRODUCTS = tuple(row.product for row in ROWS)
