"""SALMONN's own test prompts by task, and the short names that `alm-run` offers for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alm.facts import PromptFacts
from alm.text.prompt import WHOLE

PLACEHOLDER = "<SpeechHere>"
AUDIO = f"<Speech>{PLACEHOLDER}</Speech>"
# Spellings are the original's, errors included: the models were trained and tested with them.
SALMONN_TASKS = {
    "asr": "Recognize the speech and give me the transcription.",
    "asr_zh": "请将语音中的内容写下来。",
    "asr_de": "Hören Sie sich die Rede an und schreiben Sie ihren Inhalt auf.",
    "translation_ec": "Listen to the speech and translate it into Chinese.",
    "translation_en2ja": "Listen to the speech and translate it into Japanese.",
    "translation_en2de": "Listen to the speech and translate it into German.",
    "audiocaption": "Please describe the audio.",
    "audiocaption_v2": "Please write down what your hear in the audio.",
    "phone_recognition": "Provide the phonetic transcription for the speech.",
    "speech_query": "Please answer the question in detail.",
    "emotion_recognition": "Describe the emotion of the speaker in one word.",
    "lyrics_recognition": "Listen to the song and write down its content.",
    "audio_speech_description": "Describe the speech and the background audio",
    "fluent_speech_audio": "Describe the background audio and the speech in a fluent sentence.",
    "speaker_verification": "Do you only hear the same person talking? Answer yes or no.",
    "speech_separation": "Please write down what you hear each person says.",
    "audio_story_telling": "Based on the audio, write a story in detail. "
    "Your story should be highly related to the audio.",
    "speech_audio_query": "Please answer the speaker's question in detail "
    "based on the background sound.",
    "music_description": "Listen to this music clip and describe the music.",
    "speech_audio_coreasoning": "Use your strong reasoning skills to answer the speaker's "
    "question in detail based on the background sound.",
    "keywords": "Give me only three keywords of the text.",
    "speaker_diarization_asr": "Please recognize each speaker and transcribe their speech content.",
}

SHORT_NAMES = {
    "transcribe": "asr",
    "describe": "audiocaption",
    "transcribe_de": "asr_de",
    "transcribe_zh": "asr_zh",
    "translate_de": "translation_en2de",
    "translate_ja": "translation_en2ja",
    "translate_zh": "translation_ec",
    "emotion": "emotion_recognition",
    "lyrics": "lyrics_recognition",
    "music": "music_description",
}

# Tasks whose answers to consecutive windows of one recording read on when they are joined.
JOINED_TASKS = ("asr", "asr_zh", "asr_de", "phone_recognition", "lyrics_recognition")


def prompt(outer: str, test_prompts: Mapping[str, Any], end: str) -> PromptFacts:
    """The prompt facts of a SALMONN checkpoint.

    Args:
        outer: the config's template, with one {} for the audio and the question.
        test_prompts: the checkpoint's, by task; templates among them are left out.
        end: what an answer ends with, for the turns that follow it.
    """
    texts = {name: text for name, text in test_prompts.items() if isinstance(text, str)}
    questions = {name: text.replace(AUDIO, "").strip() for name, text in texts.items()}
    tasks = SALMONN_TASKS | {name: q for name, q in questions.items() if "{}" not in q}
    named = {short: tasks[full] for short, full in SHORT_NAMES.items()}
    return PromptFacts(
        turn=outer.replace("{}", "{clips}{}"),
        clip=f"{AUDIO} ",
        placeholder=PLACEHOLDER,
        end=end,
        trim=WHOLE,  # the original's command line strips what is typed
        tasks=named | tasks,
        joined=tuple(sorted({tasks[name] for name in JOINED_TASKS})),
    )
