"""What a SpeechGPT checkpoint consists of on disk: config, HuBERT, centres, LLaMA and its LoRA."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import TokenFacts, UnitFacts
from wrappers.checkpoint.text import generation_fields, legacy_pieces
from wrappers.checkpoint.unit_files import UnitFiles

SECTION = "speechgpt"
PATHS = ("llama_path", "hubert_path", "km_path")
KEYS = (*PATHS, "lora_path", "layer")
OPEN, CLOSE, UNIT = "<sosp>", "<eosp>", "<{}>"
ANSWER_ENDS = "<eoa>"
TURN = "[Human]: {}{clips} <eoh>. [SpeechGPT]: "
META = """\
You are an AI assistant whose name is SpeechGPT.
- SpeechGPT is a intrinsic cross-modal conversational language model that is developed by Fudan \
University.  SpeechGPT can understand and communicate fluently with human through speech or text \
chosen by the user.
- It can perceive cross-modal inputs and generate cross-modal outputs.
"""


class SpeechGptFiles(UnitFiles):
    """One checkpoint on disk; each property is read once, on first use."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        return self.section(SECTION)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        filled = META + TURN.replace("{clips}", OPEN + CLOSE)
        texts = (filled.replace("{}", "what is this? This is input:"), f"{OPEN}<1><1>{CLOSE} a")
        return legacy_pieces.tokenizer(self.path("llama_path"), texts)

    @cached_property
    def units(self) -> UnitFacts:
        """The tokens of units, which must follow each other.

        Raises:
            BadCheckpoint: one of them, or of the tokens of the prompt, is no token of the LLM.
        """
        file = self.path("llama_path") / legacy_pieces.ADDED
        needed = (OPEN, CLOSE, "[Human]", "[SpeechGPT]", "<eoh>")
        count, first = self.unit_tokens(self.tokenizer, UNIT, needed, file)
        return UnitFacts(count=count, first=first, merged=True)

    @cached_property
    def tokens(self) -> TokenFacts:
        """Where a conversation begins and an answer ends; `generate` is given ids."""
        folder, config = self.path("llama_path"), self.spec.config
        file, plain = generation_fields.in_folder(folder)
        end = plain.get("eos_token_id", config.eos_token_id)
        ends = [int(i) for i in (end if isinstance(end, list) else [end]) if i is not None]
        if not ends or config.bos_token_id is None:
            raise BadCheckpoint(f"{folder} does not say bos_token_id and eos_token_id")
        stops = (*generation_fields.stop_strings(plain, file), ANSWER_ENDS)
        return TokenFacts(int(config.bos_token_id), tuple(ends), stops, penalize_prompt=True)
