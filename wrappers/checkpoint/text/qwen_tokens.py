"""The tokenizer of QWen and Qwen-Audio (2023) out of its qwen.tiktoken.

Behind the ranks stand special tokens in an order that only the authors' code knows. Those of audio
are tokens in whatever text they are spelled, and are shown where a model answers with them: times,
languages, tasks. The others are control tokens.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from wrappers.checkpoint.plain_files import read_json
from wrappers.checkpoint.text import tiktoken_file

FILE, SETTINGS = "qwen.tiktoken", "tokenizer_config.json"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
PAD = "[[[AUDIO:modality]]]"
OPEN, CLOSE = "<audio>", "</audio>"
LANGUAGES = ("en", "zh", "de", "es", "ko", "fr", "ja", "it")

CONTROL = (END, IM_START, IM_END, *(f"<|extra_{i}|>" for i in range(205)))


def _named(words: str) -> list[str]:
    return [f"<|{word}|>" for word in words.split()]


AUDIO = (
    PAD,
    *_named("startoftranscript startofanalysis translate transcribe caption keyword unknown"),
    *(f"<|{code}|>" for code in LANGUAGES),
    *_named("zh_tr notimestamps sil timestamps"),
    *(f"<|{i * 0.01:.2f}|>" for i in range(3001)),
    *_named("caption_audiocaps caption_clotho audioset_ontology caption_plain itn wo_itn"),
    *_named("startofentityvalue endofentityvalue startofentitytype endofentitytype"),
    *_named("named_entity_recognition audio_grounding startofword endofword delim"),
    *_named("emotion_recognition music_description note_analysis pitch"),
    *(f"<|midi_pitch_{i}|>" for i in range(128)),
    "<|velocity|>",
    *(f"<|midi_velocity_{i}|>" for i in range(128)),
    *_named("sonic instrument speaker_meta song_meta question answer choice scene event"),
    *_named("vocal_classification speech_understanding scenario action entities speech_edit"),
)


def tags(folder: Path) -> tuple[str, str]:
    """The tokens around a clip.

    Raises:
        BadCheckpoint: tokenizer_config.json has others that are none, or decodes in another way.
    """
    file = folder / SETTINGS
    plain = read_json(file) if file.is_file() else {}
    opens, closes = plain.get("audio_start_tag", OPEN), plain.get("audio_end_tag", CLOSE)
    wrong = []
    if not all(isinstance(tag, str) and tag for tag in (opens, closes)) or opens == closes:
        wrong.append(f"the tags {opens!r:.80} and {closes!r:.80} around a clip")
    elif {opens, closes} & {*CONTROL, *AUDIO}:
        wrong.append(f"tags around a clip ({opens:.80} and {closes:.80}) that mean something else")
    if plain.get("errors", "replace") != "replace":
        wrong.append(f"errors: {plain['errors']!r:.80}; known is `replace`, for half a character")
    if wrong:
        raise BadCheckpoint(f"{file} says {'; '.join(wrong)}")
    return opens, closes


def tokenizer(folder: Path) -> Tokenizer:
    """What tokenizes as the authors' QWenTokenizer does, which takes every special token.

    Raises:
        MissingFile: no qwen.tiktoken.
        BadCheckpoint: it is none, or tokenizer_config.json says what is not known.
    """
    pieces = tiktoken_file.ranks(folder / FILE)
    audio = (*AUDIO, *tags(folder))
    both = [name for name in (*CONTROL, *audio) if name.encode() in pieces]
    if both:
        raise BadCheckpoint(f"{folder / FILE} has {both[0]!r} among its pieces, a special token")
    made = tiktoken_file.tokenizer(pieces, PATTERN, nfc=True)
    made.add_special_tokens(tiktoken_file.tokens(CONTROL, special=True))
    made.add_tokens(tiktoken_file.tokens(audio, special=False))
    return made
