"""Kimi-Audio's tokenizer out of its tiktoken.model, and how it is asked.

Behind the ranks stand 421 special tokens in an order that only the authors' code knows. None of
them is ever read in a user's text.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from wrappers.checkpoint.plain_files import read_json
from wrappers.checkpoint.text import tiktoken_file
from wrappers.checkpoint.text.qwen_tokens import PATTERN

FILE, SETTINGS, CLASS = "tiktoken.model", "tokenizer_config.json", "TikTokenTokenizer"
MSG_END = "<|im_msg_end|>"
OPEN, CLOSE = "<|im_media_begin|>", "<|im_media_end|>"
BLANK, TEXT_END = "<|im_kimia_text_blank|>", "<|im_kimia_text_eos|>"
USER, ANSWER = "<|im_kimia_user_msg_start|>", "<|im_kimia_assistant_msg_start|>"
SPOKEN, SPOKEN_ALOUD = "<|im_kimia_speech_ct_id|>", "<|im_kimia_speech_ctd_id|>"
COUNT = 421
# By their place behind the ranks; the others are reserved, and the last two are named so.
NAMED = {
    **{0: "[BOS]", 1: "[EOS]", 2: MSG_END, 3: "<|im_user_msg_start|>"},
    **{4: "<|im_assistant_msg_start|>", 9: "[EOT]", 18: OPEN, 20: CLOSE, 23: BLANK, 24: TEXT_END},
    **{27: USER, 28: ANSWER, 32: SPOKEN, 33: SPOKEN_ALOUD, COUNT - 2: "[UNK]", COUNT - 1: "[PAD]"},
}
# The words of the authors' README; those of `describe` are ours.
TASKS = {
    "transcribe": "Please transcribe the following audio:",
    "chat": "",
    "describe": "Please describe the following audio:",
}


def specials() -> list[str]:
    """The special tokens in their order."""
    names, reserved = [], 0
    for place in range(COUNT):
        if place in NAMED:
            names.append(NAMED[place])
        else:
            names.append(f"<|reserved_token_{reserved}|>")
            reserved += 1
    return names


def tokenizer(folder: Path) -> Tokenizer:
    """What tokenizes as the authors' TikTokenTokenizer does.

    Raises:
        MissingFile: no tiktoken.model.
        BadCheckpoint: it is none, or tokenizer_config.json names another class.
    """
    file = folder / SETTINGS
    named = (read_json(file) if file.is_file() else {}).get("tokenizer_class", CLASS)
    if named != CLASS:
        raise BadCheckpoint(f"{file} says tokenizer_class: {named!r:.80}; known is {CLASS}")
    pieces = tiktoken_file.ranks(folder / FILE)
    if both := [name for name in specials() if name.encode() in pieces]:
        raise BadCheckpoint(f"{folder / FILE} has {both[0]!r} among its pieces, a special token")
    made = tiktoken_file.tokenizer(pieces, PATTERN, nfc=False)
    made.add_special_tokens(tiktoken_file.tokens(specials(), special=True))
    return made


def prompt() -> PromptFacts:
    """The prompt facts: the one stream that both of the original's are, once they are summed.

    Where one of them has a token the other has a blank, but for a clip's own rows.
    """
    return PromptFacts(
        turn=f"{USER}{{}}{{clips}}{MSG_END}{ANSWER}",
        clip=f"{OPEN}{BLANK}{CLOSE}",
        clip_last=SPOKEN,
        placeholder=BLANK,
        end=f"{TEXT_END}{MSG_END}",
        literal=True,
        tasks=TASKS,
        joined=(TASKS["transcribe"],),
    )
