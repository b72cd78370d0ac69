"""How a session is set up: OpenAI's objects, of today and of the beta, done or refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from alm.audio.streams import ALAW, G711_RATE, PCM16, RATES, ULAW
from alm.serve.endpoints.fields import Fields, wrong
from alm.serve.inside.asking import in_context, task_of
from alm.serve.inside.server import Server
from alm.serve.refused import Refused
from alm.voice.activity import Settings

RATE = 24_000  # Hz, of pcm16 where no other is asked for
TYPES = {PCM16: "audio/pcm", ULAW: "audio/pcmu", ALAW: "audio/pcma"}
BETA_NAMES = {PCM16: "pcm16", ULAW: "g711_ulaw", ALAW: "g711_alaw"}
VAD = "server_vad"
ONSET = 18.0  # dB above the floor of noise at a threshold of 1; 0.5 is the runtime's own default
LEAST_ONSET = 1.0
RELEASE = 5 / 9  # of the onset: where speech goes on
MOST_SILENCE, MOST_PADDING = 10_000, 5_000  # ms


@dataclass(frozen=True)
class Turns:
    """Where utterances begin and end, in OpenAI's units."""

    threshold: float = 0.5
    silence_ms: int = 500
    padding_ms: int = 300

    @property
    def pauses(self) -> Settings:
        """The same as the runtime has it."""
        onset = max(LEAST_ONSET, ONSET * self.threshold)
        hang_over, before = self.silence_ms / 1000, self.padding_ms / 1000
        return Settings(onset, RELEASE * onset, hang_over=hang_over, before=before)


@dataclass(frozen=True)
class Setup:
    """A session's settings; `turns` is None where the client says when an utterance ends."""

    model: str
    encoding: str = PCM16
    rate: int = RATE
    language: str = ""
    context: str = ""
    turns: Turns | None = Turns()

    def plain(self) -> dict[str, Any]:
        """What both kinds of session object say."""
        turns = self.turns and {
            "type": VAD,
            "threshold": self.turns.threshold,
            "prefix_padding_ms": self.turns.padding_ms,
            "silence_duration_ms": self.turns.silence_ms,
        }
        asked = {"model": self.model, "language": self.language or None, "prompt": self.context}
        return {"transcription": asked, "turn_detection": turns, "noise_reduction": None}

    def session(self, name: str) -> dict[str, Any]:
        """OpenAI's session object; `name` is its id."""
        form: dict[str, Any] = {"type": TYPES[self.encoding]}
        if self.encoding == PCM16:
            form["rate"] = self.rate
        return {
            **{"id": name, "object": "realtime.transcription_session", "type": "transcription"},
            "audio": {"input": {"format": form, **self.plain()}},
            "include": None,
        }

    def beta(self, name: str) -> dict[str, Any]:
        """The session object of OpenAI's beta."""
        plain = self.plain()
        return {
            **{"id": name, "object": "realtime.transcription_session"},
            "input_audio_format": BETA_NAMES[self.encoding],
            "input_audio_transcription": plain["transcription"],
            "turn_detection": plain["turn_detection"],
            "input_audio_noise_reduction": None,
            "include": None,
        }


def updated(server: Server, old: Setup, session: Any) -> Setup:
    """The settings with what a `session.update` gives in their place.

    Raises:
        Refused: for the first field that is not done, which it names.
    """
    given, fields = _object("session", session)
    with under("session"):
        fields.take("object")
        kind = fields.take("type")
        if kind != "transcription":
            raise wrong("type", "'transcription', as nothing is spoken here", kind)
        fields.only("include", [])
        new = _audio(server, old, given, fields)
        fields.end()
    return new


def _audio(server: Server, old: Setup, session: Mapping[str, Any], fields: Fields) -> Setup:
    fields.take("audio")
    if session.get("audio") is None:
        return old
    given, fields = _object("audio", session["audio"])
    with under("audio"):
        fields.take("input")
        fields.end()
        if given.get("input") is None:
            return old
        given, fields = _object("input", given["input"])
        with under("input"):
            new = _format(old, "format", fields.take("format"))
            fields.only("noise_reduction")
            new = _transcription(server, new, "transcription", given, fields)
            new = _turns(new, given, fields)
            fields.end()
    return new


def updated_beta(server: Server, old: Setup, session: Any) -> Setup:
    """The same of a `transcription_session.update`, whose fields have other names."""
    given, fields = _object("session", session)
    with under("session"):
        fields.only("include", [])
        fields.only("modalities", ["text"])
        fields.only("input_audio_noise_reduction")
        new = _format(old, "input_audio_format", fields.take("input_audio_format"))
        new = _transcription(server, new, "input_audio_transcription", given, fields)
        new = _turns(new, given, fields)
        fields.end()
    return new


def _format(old: Setup, name: str, value: Any) -> Setup:
    """The encoding and rate; the beta has a name for both."""
    if value is None:
        return old
    if isinstance(value, str):
        for encoding, beta in BETA_NAMES.items():
            if value == beta:
                return replace(old, encoding=encoding, rate=_rate(encoding, None))
        raise wrong(name, f"one of {', '.join(BETA_NAMES.values())}", value)
    _, fields = _object(name, value)
    with under(name):
        kind = fields.one_of("type", TYPES[PCM16], *TYPES.values())
        encoding = {of: encoding for encoding, of in TYPES.items()}[kind]
        rate = _rate(encoding, fields.whole("rate", RATES[0], RATES[-1]))
        fields.end()
    return replace(old, encoding=encoding, rate=rate)


def _rate(encoding: str, rate: int | None) -> int:
    if encoding == PCM16:
        return rate or RATE
    if rate not in (None, G711_RATE):
        raise wrong("rate", f"{G711_RATE}, which G.711 has", rate)
    return G711_RATE


def _transcription(
    server: Server, old: Setup, name: str, given: Mapping[str, Any], fields: Fields
) -> Setup:
    value = fields.take(name)
    if name not in given:
        return old
    if value is None:
        raise wrong(name, "an object: transcriptions are all that is done here", None)
    given, fields = _object(name, value)
    with under(name):
        model = server.check_model(fields)
        language = fields.text("language", "" if "language" in given else old.language)
        context = fields.text("prompt", "" if "prompt" in given else old.context)
        fields.only("keywords", [])
        fields.only("languages", [])
        fields.only("delay")
        fields.end()
        in_context(server, task_of(server, "transcribe", language), context)
    return replace(old, model=model, language=language, context=context)


def _turns(old: Setup, session: Mapping[str, Any], fields: Fields) -> Setup:
    """Turn detection; null turns it off, and what an object leaves out is as it was."""
    name = "turn_detection"
    value = fields.take(name)
    if name not in session:
        return old
    if value is None:
        return replace(old, turns=None)
    given, fields = _object(name, value)
    with under(name):
        kind = given.get("type")
        if kind != VAD:
            raise wrong("type", f"{VAD!r}: what is done here listens for silence", kind)
        fields.take("type")
        for of_responses in ("create_response", "interrupt_response"):
            fields.only(of_responses, False)
        before = old.turns or Turns()
        threshold = fields.number("threshold", 0, 1)
        silence = fields.whole("silence_duration_ms", 30, MOST_SILENCE)
        padding = fields.whole("prefix_padding_ms", 0, MOST_PADDING)
        fields.only("idle_timeout_ms")
        fields.end()
    return replace(
        old,
        turns=Turns(
            before.threshold if threshold is None else threshold,
            before.silence_ms if silence is None else silence,
            before.padding_ms if padding is None else padding,
        ),
    )


def _object(name: str, value: Any) -> tuple[dict[str, Any], Fields]:
    """A field that is an object, as it came and as fields."""
    if not isinstance(value, dict):
        raise wrong(name, "an object", value)
    return value, Fields(value)


@contextmanager
def under(name: str) -> Iterator[None]:
    """Refusals of an object's fields say which object."""
    try:
        yield
    except Refused as refused:
        refused.param = f"{name}.{refused.param}" if refused.param else name
        raise
