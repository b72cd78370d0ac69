"""OpenAI's messages as questions with clips, and the answers to those before the last."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from alm.serve.inside.kept import Exchange
from alm.serve.refused import Refused
from alm.text.prompt import MARK

MOST_MESSAGES = 1000


def conversation(messages: Any) -> tuple[str, list[Exchange]]:
    """The system message, "" where there is none, and the exchanges; the last has no answer.

    Texts and clips of a message keep their order, and messages of the user that follow each other
    are one question.

    Raises:
        Refused: something in it is not known, not sound, or out of order; it names the place.
    """
    if not isinstance(messages, list) or not messages or len(messages) > MOST_MESSAGES:
        raise _wrong("messages", f"a list of 1 to {MOST_MESSAGES} messages")
    made: list[Exchange] = []
    asked: list[str | bytes] = []
    system = ""
    for i, message in enumerate(messages):
        place = f"messages[{i}]"
        role, content = _message(message, place)
        if role in ("system", "developer"):
            if i:
                raise Refused(400, f"{place}: a {role} message comes first", param=place)
            system = "".join(map(str, _content(content, place)))
            continue
        if role == "user":
            asked += ["\n"] if asked and isinstance(asked[-1], str) else []
            asked += _content(content, place, clips=True)
            continue
        if not asked:
            raise Refused(400, f"{place} answers nothing; a user's message first", param=place)
        made.append(_exchange(asked, place, "".join(map(str, _content(content, place)))))
        asked = []
    if not asked:
        raise Refused(400, "the last message is wanted from the user", param="messages")
    return system, [*made, _exchange(asked, "messages", None)]


def _message(message: Any, place: str) -> tuple[str, Any]:
    if not isinstance(message, dict):
        raise _wrong(place, "an object with role and content")
    role = message.get("role")
    if role not in ("system", "developer", "user", "assistant"):
        raise _wrong(f"{place}.role", "system, user or assistant")
    known = {"role", "content", "name", "refusal", "reasoning_content", "annotations"}
    for name, value in message.items():
        if (name not in known and value not in (None, [], {})) or (name == "refusal" and value):
            raise Refused(400, f"{place}.{name:.60} is not known here", param=f"{place}.{name:.60}")
    return role, message.get("content")


def _content(content: Any, place: str, clips: bool = False) -> Iterator[str | bytes]:
    """Texts and the bytes of clips, in their order."""
    if isinstance(content, str):
        yield content
        return
    if not isinstance(content, list) or not content:
        raise _wrong(f"{place}.content", "a text, or a list of parts")
    for j, part in enumerate(content):
        where = f"{place}.content[{j}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            yield part["text"]
        elif kind == "input_audio" and clips:
            yield _clip(part.get("input_audio"), f"{where}.input_audio")
        elif kind == "audio_url" and clips:
            yield _of_url(part.get("audio_url"), f"{where}.audio_url")
        else:
            kinds = "text, input_audio or audio_url" if clips else "text"
            raise _wrong(where, f"a part of type {kinds}")


def _clip(audio: Any, place: str) -> bytes:
    """The file in `input_audio`. Its format is what its bytes say, as for every file."""
    if not isinstance(audio, dict) or not isinstance(audio.get("data"), str):
        raise _wrong(place, "an object with data, a file in base64, and format")
    for name in audio:
        if name not in ("data", "format"):
            raise Refused(400, f"{place}.{name:.60} is not known here", param=place)
    return _decoded(audio["data"], place)


def _of_url(url: Any, place: str) -> bytes:
    """The file in a data URL; no other address is asked, since it may be one behind the wall."""
    url = url.get("url") if isinstance(url, dict) else url
    if not isinstance(url, str) or not url.startswith("data:") or ";base64," not in url[:200]:
        raise _wrong(place, "a URL with the file in it (data:audio/wav;base64,...)")
    return _decoded(url.split(";base64,", 1)[1], place)


def _decoded(text: str, place: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(place, "a file in base64") from None


def _exchange(asked: list[str | bytes], place: str, answer: str | None) -> Exchange:
    """The question of these texts and clips; clips stand where they were between texts."""
    clips = tuple(item for item in asked if isinstance(item, bytes))
    texts = [item for item in asked if isinstance(item, str)]
    if any(MARK in text for text in texts):
        raise Refused(400, f"{place}: {MARK} stands for a clip and may not be said", param=place)
    if not "".join(texts).strip():
        raise Refused(400, f"{place}: no text says what to do", param=place)
    inside = [i for i, item in enumerate(asked) if isinstance(item, bytes)]
    leading = inside == list(range(len(inside)))
    marked = "".join(item if isinstance(item, str) else MARK for item in asked)
    # Before the words clips stand where the model's own turn has them.
    return Exchange("".join(texts) if leading else marked, clips, answer)


def _wrong(place: str, wanted: str) -> Refused:
    return Refused(400, f"{place} is wanted as {wanted}", param=place)
