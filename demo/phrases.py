"""What the demo model is taught to say: spoken commands, digits, and one caption for each sound."""

from __future__ import annotations

import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from wrappers.checkpoint.text.prompts import SALMONN_TASKS

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DEVICES = ("light", "lamp", "heater", "fan", "radio", "music", "television")
ROOMS = ("kitchen", "bedroom", "bathroom", "garage", "garden", "office")
OPENINGS = ("door", "window", "curtain", "garage")
PEOPLE = ("mother", "father", "doctor")
WAYS = ("left", "right", "forward", "back")
UNITS = ("minutes", "seconds", "hours")
COLOURS = ("red", "green", "blue")
FORMS = (
    "turn {switch} the {device}",
    "turn {switch} the {device} in the {room}",
    "turn the {device} {switch}",
    "turn the {device} {colour}",
    "{open} the {opening}",
    "{open} the {opening} in the {room}",
    "set the timer for {digit} {unit}",
    "set the alarm for {digit} {unit}",
    "call {person} please",
    "call the doctor",
    "call {digit} {digit} {digit}",
    "go {way} {digit} {unit}",
    "go {way}",
    "turn {side} and stop",
    "play the next song",
    "{play} the music please",
    "volume {direction}",
    "volume {direction} please",
    "{play} the timer",
    "{answer}",
    "{answer} please",
)
BLANKS = {
    "switch": ("on", "off"),
    "device": DEVICES,
    "room": ROOMS,
    "colour": COLOURS,
    "open": ("open", "close"),
    "opening": OPENINGS,
    "digit": DIGITS,
    "unit": UNITS,
    "person": PEOPLE,
    "way": WAYS,
    "side": ("left", "right"),
    "play": ("play", "stop", "start"),
    "direction": ("up", "down"),
    "answer": ("yes", "no"),
}
SOUNDS = {
    "tone": "a steady tone",
    "siren": "a two-tone siren",
    "chirp": "a rising chirp",
    "white": "white noise",
    "pink": "pink noise",
    "clicks": "a row of clicks",
    "knocking": "knocking on a door",
    "chord": "a musical chord",
    "rain": "rain",
}
SPEAKING = "a person speaking"
SILENT = "no speech"  # the transcription of a clip in which nobody speaks

TURN = "USER: {clips}{}\nASSISTANT:"
CLIP = "<Speech><SpeechHere></Speech> "
ASKED = {"transcribe": SALMONN_TASKS["asr"], "describe": SALMONN_TASKS["audiocaption"]}


def _words() -> tuple[str, ...]:
    forms = {word for form in FORMS for word in form.split() if not word.startswith("{")}
    blanks = {word for choices in BLANKS.values() for word in choices}
    return (*DIGITS, *sorted((forms | blanks) - set(DIGITS)))


WORDS = _words()


def command(chance: random.Random) -> str:
    """A command such as "turn on the light in the kitchen"."""
    form = chance.choice(FORMS)
    while "{" in form:
        name = form[form.index("{") + 1 : form.index("}")]
        form = form.replace("{" + name + "}", chance.choice(BLANKS[name]), 1)
    return form


def digits(chance: random.Random, most: int = 6) -> str:
    """One to `most` digits; every third time one is said twice in a row, which is hard to hear."""
    said = [chance.choice(DIGITS) for _ in range(chance.randint(1, most))]
    if len(said) > 1 and chance.random() < 0.33:
        at = chance.randrange(1, len(said))
        said[at] = said[at - 1]
    return " ".join(said)


def caption(sound: str, spoken: bool) -> str:
    """What is heard, in a few words; `sound` is a key of SOUNDS, or "" for none."""
    if not spoken:
        return SOUNDS[sound]
    return f"{SPEAKING} over {SOUNDS[sound]}" if sound else SPEAKING


def tokenizer(entries: int = 640) -> Tokenizer:
    """A byte-level BPE in which each word that the model says, with its space, is one token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    said = [f" {word}" for word in WORDS]
    said += [f" {caption(sound, spoken)}" for sound in SOUNDS for spoken in (True, False)]
    said += [f" {SILENT}"]
    asked = [TURN.replace("{clips}", CLIP).replace("{}", query) for query in ASKED.values()]
    others = list(SALMONN_TASKS.values())
    made.train_from_iterator(said * 50 + asked * 50 + others, trainer)
    made.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return made
