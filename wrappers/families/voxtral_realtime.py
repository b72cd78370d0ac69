"""Voxtral Realtime (Mistral 2026): sound is heard as it comes, and a token said every 80 ms.

A causal encoder, four frames side by side through two layers, and a Mistral: the embedding of each
step of sound is added to that of the token said before it. There are no words of a user.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import LiveFacts, PromptFacts, TokenFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint import tekken_audio
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.model_type import model_type
from wrappers.encoders import voxtral_realtime as tower
from wrappers.frontends.mel import HOP, RATE
from wrappers.frontends.stream_mel import StreamMel

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: voxtral_realtime"

BOS, PAD, WORD = "<s>", "[STREAMING_PAD]", "[STREAMING_WORD]"
FFT = 400
WINDOW = 30 * RATE  # samples of a usual clip; there is no longest
ENDLESS = 2**24  # new tokens: the sound ends an answer


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Voxtral Realtime."""
    return model_type(path) == VoxtralRealtime.family


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tekken.json in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other or are of no stream, or a tokenizer without the tokens of one.
    """
    folder = VoxtralRealtime(path)
    return folder.checkpoint(
        audio_tokens=lambda: WINDOW // folder.step, least_samples=1, long="joined"
    )


class VoxtralRealtime(Folder):
    """The checkpoint taken apart."""

    family = tower = "voxtral_realtime"
    front = "stream_mel"
    bridge = {"layers.0": "linear_1", "layers.2": "linear_2"}

    @property
    def stack(self) -> int:
        """Frames of the encoder that are one row.

        Raises:
            BadCheckpoint: none, or a token is said at other times than a row is made.
        """
        config = self.config
        stack, each = config.downsample_factor, config.audio_length_per_tok
        # mistral-common has steps a second, of which these must be the samples again.
        if stack < 1 or each != 2 * stack or RATE // (RATE / (each * HOP)) != each * HOP:
            raise BadCheckpoint(
                f"{self.file} says audio_length_per_tok: {each} and downsample_factor: {stack}; "
                "the first must be twice the second, and steps of so many frames part of a second"
            )
        return stack

    @property
    def step(self) -> int:
        """Samples of a row."""
        return 2 * self.stack * HOP

    @property
    def tied(self) -> bool:
        """The head is the whole model's, and so is the setting."""
        return bool(self.config.tie_word_embeddings)

    @cached_property
    def loudest(self) -> float:
        """The extractor's `global_log_mel_max`.

        Raises:
            BadCheckpoint: it has none, or is of another spectrogram; all that is wrong named.
        """
        mels = self.audio_config.num_mel_bins
        wanted: dict[str, Any] = {"feature_size": mels, "win_length": FFT, "padding_value": 0.0}
        settings = self.check_extractor(wanted)
        loudest = settings.get("global_log_mel_max", 1.5)
        if type(loudest) not in (int, float) or not -100 < loudest < 100:
            raise BadCheckpoint(
                f"{self.path} has an extractor of global_log_mel_max {str(loudest)[:80]}; a stream "
                "is as loud as it says beforehand, so it must be a number"
            )
        return float(loudest)

    @cached_property
    def stream(self) -> tekken_audio.Stream:
        """What tekken.json says of the stream."""
        wanted = {"sampling_rate": RATE, "frame_rate": RATE / self.step}
        mels = self.audio_config.num_mel_bins
        encoding = {"num_mel_bins": mels, "hop_length": HOP, "window_size": FFT}
        return tekken_audio.read(self.path, 1000 * self.step / RATE, wanted, encoding)

    @cached_property
    def window_samples(self) -> int:
        """See `Files.window_samples`; a clip of any length is heard as one.

        Raises:
            BadCheckpoint: the extractor's settings, or those of tekken.json, are of no stream.
        """
        wrong: list[str] = []
        for read in (lambda: self.loudest, lambda: self.stream):
            try:
                read()
            except BadCheckpoint as error:
                wrong.append(str(error))
        if wrong:
            raise BadCheckpoint("; ".join(wrong))
        return WINDOW

    def mel(self) -> Wrapper:
        return StreamMel(int(self.audio_config.num_mel_bins), self.loudest)

    def build_tower(self) -> Wrapper:
        audio = self.audio_config
        return tower.build({name: getattr(audio, name) for name in tower.DEFAULTS})

    def build_projector(self) -> Projector:
        width, hidden = int(self.audio_config.hidden_size), self.spec.hidden
        return Projector(
            [self.stack * width, hidden, hidden],
            stack=self.stack,
            bias=False,
            activation=self.config.projector_hidden_act,
        )

    def generation(self) -> dict[str, Any]:
        """The folder's defaults; transformers heeds no length in them, as the sound has one."""
        plain = {n: v for n, v in super().generation().items() if n != "max_length"}
        return plain | {"max_new_tokens": ENDLESS}

    def tokens(self, tokenizer: Tokenizer, start: str) -> TokenFacts:
        """See `Files.tokens`; BOS is in front of every stream."""
        found = super().tokens(tokenizer, start)
        return TokenFacts(tokenizer.token_to_id(BOS), found.eos, found.stop_strings, True)

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        self.tokens_there(tokenizer, (BOS, PAD, WORD))
        return PromptFacts(
            turn="{clips}{}",
            clip=PAD,
            placeholder=PAD,
            single=True,
            tasks={"transcribe": ""},
        )

    def live(self) -> LiveFacts:
        """How the stream is heard."""
        windows = set(self.spec.windows)
        return LiveFacts(
            step_samples=self.step,
            ahead_samples=FFT // 2 - HOP,
            left=self.stream.left,
            right=tekken_audio.RIGHT,
            delay=self.stream.delay,
            pad=PAD,
            window=windows.pop() if len(windows) == 1 else 0,
        )
