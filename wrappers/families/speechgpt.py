"""SpeechGPT (github.com/0nutation/SpeechGPT): HuBERT, k-means, and a LLaMA that reads units.

A clip becomes numbers of k-means centres, repeats merged, and stands in the prompt as the tokens
`<sosp><12><7>...<eosp>` of the LLM's own vocabulary. A `config.yaml` names the folders:

    speechgpt:
      llama_path: SpeechGPT-7B-cm
      lora_path: SpeechGPT-7B-com
      hubert_path: mhubert-base-vp_en_es_fr-it3
      km_path: km1000.npy
      layer: 11
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alm.errors import BadCheckpoint
from alm.facts import AudioFacts, Facts, PromptFacts
from wrappers import Checkpoint
from wrappers.checkpoint import llm_files
from wrappers.checkpoint.salmonn_keys import strange
from wrappers.checkpoint.speechgpt_files import (
    CLOSE,
    KEYS,
    META,
    OPEN,
    PATHS,
    SECTION,
    TURN,
    SpeechGptFiles,
)
from wrappers.checkpoint.yaml_config import config_file, recognised, refuse_all
from wrappers.encoders import hubert
from wrappers.encoders.hubert import RATE

LOOKS_LIKE = f"a config.yaml with a section `{SECTION}` ({', '.join(PATHS)})"

# The original gives 100 s to HuBERT at a time; from 60 s on units fill a LLaMA's 2,048 positions.
MOST_SAMPLES = 60 * RATE
PLACEHOLDER = "<UnitsHere>"
# What the original gives to `generate`.
ORIGINAL: dict[str, Any] = dict(
    do_sample=True, temperature=0.7, top_p=0.8, top_k=50, min_new_tokens=10, max_new_tokens=2048
)
TASKS = {
    "transcribe": "please transcribe the speech. This is input:",
    "repeat": "Try to repeat this speech, This is input:",
}


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.yaml with our section."""
    return recognised(path, lambda c: isinstance(c, dict) and SECTION in c, [f"{SECTION}:"])


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: files or folders that the config names, all of them at once.
        BadCheckpoint: weights missing, misshapen or unknown (all named at once), or settings that
            are not followed.
    """
    return SpeechGpt(config_file(path)).checkpoint()


class SpeechGpt(SpeechGptFiles):
    """The checkpoint taken apart."""

    @property
    def most_samples(self) -> int:
        """See `UnitFiles.most_samples`."""
        return MOST_SAMPLES

    def _generation(self) -> dict[str, Any]:
        """What the original gives to `generate`; the rest comes from its LLM's folder."""
        return self.generation(ORIGINAL, self.section("generate"), 256)

    # --- the whole

    def check(self) -> None:
        """Name everything that is missing, misshapen or does not fit, at once."""
        optional = ("lora_path",) if self.settings.get("lora_path") else ()
        refuse_all(lambda key=key: self.path(key) for key in (*PATHS, *optional))
        refuse_all(
            (
                self.build_hubert,
                lambda: self.hubert_weights,
                lambda: self.centres,
                lambda: self.llm_weights,
                lambda: self.adapter,
                lambda: self.units,
                lambda: self.tokens,
                self._generation,
            )
        )
        if wrong := self.hubert_faults() + self.llm_faults():
            raise BadCheckpoint("; ".join(wrong))

    def checkpoint(self) -> Checkpoint:
        wrong = strange(self.config, (SECTION, "generate", "licence"), "section")
        wrong += strange(self.section(SECTION), KEYS, "key")
        if wrong:
            raise BadCheckpoint(f"{self.file} says what is not known here: {'; '.join(wrong)}")
        self.check()
        least = hubert.least_samples(self.hubert_config)
        return Checkpoint(
            family=SECTION,
            parts={"hubert": self.hubert, "kmeans": self.kmeans, "decoder": self.decoder},
            embedding=self.embedding,
            tokenizer_json=self.tokenizer.to_str(),
            facts=Facts(
                prompt=PromptFacts(
                    start=META,
                    turn=TURN,
                    clip=OPEN + PLACEHOLDER + CLOSE,
                    placeholder=PLACEHOLDER,
                    one_turn=True,
                    tasks=TASKS,
                    joined=(TASKS["transcribe"],),
                ),
                tokens=self.tokens,
                units=self.units,
                generation=self._generation(),
                audio=AudioFacts(RATE, "mean", least, MOST_SAMPLES, "each"),
                dimensions=llm_files.dimensions(
                    self.spec, audio_tokens=hubert.frames_of(self.hubert_config, MOST_SAMPLES)
                ),
                source={
                    "config": self.file.name,
                    "llm": self.spec.config.model_type,
                    "adapter": self.adapter.kind.name if self.adapter else "none",
                    "fingerprint": self.fingerprint,
                },
                licence=self.section("licence"),
            ),
            notes=tuple(self.spec.found),
        )
