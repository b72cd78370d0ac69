"""Where the nodes of a graph really run: a provider that was asked for may hand them to another."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from alm.artifacts.manifest import Manifest, Part
from alm.backends import ort
from alm.doctor.finding import NOTE, OK, WRONG, Finding
from alm.doctor.vectors import Way
from alm.errors import AlmError
from alm.golden import vectors
from alm.session import BackendOptions

SHARE = 0.5  # of a part's time elsewhere, beyond which that is worth a sentence


def check(folder: Path, manifest: Manifest, way: Way, damaged: set[str]) -> Iterator[Finding]:
    """One finding for each graph, of a provider of ONNX Runtime's that is not the processor."""
    if way.provider not in ort.PROVIDERS or way.on_cpu:
        return
    for part in manifest.parts:
        if part.golden and part.inputs and part.name not in damaged:
            yield _part(folder, part, way)


def _part(folder: Path, part: Part, way: Way) -> Finding:
    try:
        count, share = placed(folder, part, way.provider)
    except AlmError as error:
        return Finding("nodes", part.name, NOTE, way.provider, what=str(error))
    return judged(part.name, way.provider, count, share)


def judged(part: str, provider: str, count: Counter[str], share: float) -> Finding:
    """What the nodes of each provider and its share of the time say."""
    wanted = ort.PROVIDERS[provider]
    what = ", ".join(f"{number} nodes on {name}" for name, number in count.most_common())
    way_out = "export with a precision and a dialect for that device: --target"
    if not count[wanted]:
        return Finding("nodes", part, WRONG, provider, what=what, way_out=way_out)
    if share < SHARE:
        what += f"; {1 - share:.0%} of the time elsewhere"
        return Finding("nodes", part, NOTE, provider, what=what, way_out=way_out)
    return Finding("nodes", part, OK, provider, what=what)


def placed(folder: Path, part: Part, provider: str) -> tuple[Counter[str], float]:
    """Nodes by ONNX Runtime's provider, and the share of the time of the one that was asked for.

    Raises:
        AlmError: the part's files or golden vectors cannot be read, or it does not run.
    """
    assert part.golden is not None
    kept = vectors.read(folder, part.golden, part.inputs, part.outputs)
    with tempfile.TemporaryDirectory() as place:
        options = BackendOptions(provider, profile=str(Path(place) / "nodes"))
        session = ort.open_session(part, folder, options)
        assert isinstance(session, ort.OrtSession)
        session.run(kept.inputs)
        events = json.loads(Path(session.profiled()).read_text("utf-8"))
    return counted(events, ort.PROVIDERS[provider])


def counted(events: list[dict[str, object]], wanted: str) -> tuple[Counter[str], float]:
    """The nodes of a profile of ONNX Runtime's by provider, and the share of `wanted` in time."""
    nodes: dict[str, str] = {}
    took: Counter[str] = Counter()
    for event in events:
        said = event.get("args")
        if event.get("cat") != "Node" or not isinstance(said, dict) or "provider" not in said:
            continue
        provider = str(said["provider"])
        nodes[str(event.get("name", ""))] = provider
        took[provider] += int(str(event.get("dur", 0)))
    return Counter(nodes.values()), took[wanted] / max(sum(took.values()), 1)
