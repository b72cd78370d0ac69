"""How Qwen-Audio's chat and base models are asked: the words and tags of their authors."""

from __future__ import annotations

from alm.facts import PromptFacts
from wrappers.checkpoint.text.qwen_tokens import IM_END, IM_START, LANGUAGES, PAD

SYSTEM = "You are a helpful assistant."
# The words of the authors' tutorial; where it has none, ours.
TASKS = {
    "transcribe": "Recognize the speech",
    "describe": "Describe the audio.",
    "emotion": "What is his emotion",
    "instrument": "what is the instrument",
    "sound": "what is that sound?",
    "translate_en": "Translate the speech into English.",
    "translate_zh": "Translate the speech into Chinese.",
}
JOINED = ("transcribe", "translate_en", "translate_zh")


def _tags(*words: str) -> str:
    return "".join(f"<|{word}|>" for word in words)


def _transcript(code: str) -> str:
    return _tags("startoftranscript", code, "transcribe", code, "notimestamps", "wo_itn")


def _translation(source: str, target: str) -> str:
    return _tags("startoftranscript", source, "translate", target, "notimestamps", "itn")


# As the authors evaluate the base model.
TRANSCRIPTS = {f"transcribe_{code}": _transcript(code) for code in LANGUAGES}
TRANSLATIONS = {
    f"translate_{source}_{target}": _translation(source, target)
    for source, target in (("en", "zh"), ("zh", "en"), ("en", "de"), ("de", "en"), ("es", "en"))
}
BASE_TASKS = {
    "transcribe": _transcript("en"),
    **TRANSCRIPTS,
    **TRANSLATIONS,
    "describe": _tags(
        *("startofanalysis", "unknown", "caption", "en", "notimestamps", "caption_clotho")
    ),
    "describe_audiocaps": _tags(
        *("startofanalysis", "unknown", "caption", "en", "notimestamps", "caption_audiocaps")
    ),
    "emotion": _tags(
        *("startofanalysis", "en", "keyword", "en", "notimestamps", "emotion_recognition")
    ),
    "voice": _tags(
        *("startofanalysis", "en", "keyword", "en", "notimestamps", "vocal_classification")
    ),
    "scene": _tags("startofanalysis", "unknown", "keyword", "en", "notimestamps", "scene"),
    "notes": _tags("startofanalysis", "unknown", "keyword", "en", "notimestamps", "note_analysis"),
}
BASE_JOINED = tuple(sorted({*TRANSCRIPTS.values(), *TRANSLATIONS.values()}))


def chat(opens: str, closes: str) -> PromptFacts:
    """The chat model's prompt facts, with these tags around a clip."""
    placeholder = f"{opens}{PAD}{closes}"
    return PromptFacts(
        start=f"{IM_START}system\n{SYSTEM}{IM_END}",
        turn=f"\n{IM_START}user\n{{clips}}{{}}{IM_END}\n{IM_START}assistant\n",
        clip=f"Audio {{k}}:{placeholder}\n",
        placeholder=placeholder,
        end=IM_END,
        literal=True,
        apart=True,
        retold=True,
        tasks=TASKS,
        joined=tuple(sorted(TASKS[name] for name in JOINED)),
    )


def base(opens: str, closes: str) -> PromptFacts:
    """The base model's: what is said to it is read on."""
    placeholder = f"{opens}{PAD}{closes}"
    return PromptFacts(
        turn="{clips}{}",
        clip=placeholder,
        placeholder=placeholder,
        tasks=BASE_TASKS,
        joined=BASE_JOINED,
    )
