"""Whether a folder holds all that a model needs to answer."""

from __future__ import annotations

from pathlib import Path

from alm.artifacts.manifest import Manifest, check_run
from alm.errors import BadArtifacts
from alm.generation.pipeline import Pipeline
from alm.text.units import NAME as UNITS


def check_complete(manifest: Manifest, folder: Path, aligns: bool) -> None:
    """Refuse, with BadArtifacts, a folder that lacks what answering, or aligning, needs."""
    roles = {part.role for part in manifest.parts}
    names = ", ".join(part.name for part in manifest.parts) or "nothing"
    front = [part for part in manifest.parts if part.role not in ("table", "decoder")]
    heard = UNITS if manifest.facts.units.count else "audio_embeds"
    lack = Pipeline(front, {}).lack(("pcm", "pcm_lengths"), (heard,))
    if lack or not {"table", "decoder"} <= roles or manifest.tokenizer is None:
        why = f" ({lack})" if lack else ""
        raise BadArtifacts(
            f"{folder} holds only {names}, not a whole model{why}; "
            f"export the rest with: alm-export --model M --part all --out {folder}"
        )
    check_run(manifest, folder)
    if aligns and not manifest.facts.align.mark:
        raise BadArtifacts(
            f"{folder} answers with text, and --align wants the folder of an aligner, "
            "such as that of Qwen3-ForcedAligner"
        )
    if manifest.facts.align.mark and not aligns:
        raise BadArtifacts(
            f"{folder} is an aligner, which times words and answers nothing; give it "
            f"beside a model: --align {folder}"
        )
