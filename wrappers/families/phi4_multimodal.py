"""Phi-4-multimodal (Microsoft 2025): a causal Conformer, two layers, a Phi-4-mini with a LoRA.

A clip of up to 30 minutes is heard as one, 12.5 embeddings a second. The LoRA that makes the LLM
listen lies in a folder of its own, `speech-lora`, and is merged. What the checkpoint has for images
is left out.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import Phi3Config

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint import llm_files, phi4_authors
from wrappers.checkpoint.adapters import contract, peft_folder
from wrappers.checkpoint.adapters.contract import Adapter
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.hf_files import BRIDGE, LLM, TOWER
from wrappers.checkpoint.model_type import model_type
from wrappers.checkpoint.plain_files import extractor
from wrappers.checkpoint.text import chat_template
from wrappers.checkpoint.text.conversations import Conversation, messages_of, written
from wrappers.encoders import phi4_conformer
from wrappers.frontends.mel import RATE
from wrappers.frontends.phi4_mel import Phi4Mel, Settings

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: phi4_multimodal or phi4mm"

SPEECH, VISION = "speech-lora", "vision-lora"
LONGEST = 1800 * RATE  # samples heard as one; the authors name half an hour
AUDIO, IMAGES = "model.embed_tokens_extend.audio_embed.", "model.embed_tokens_extend.image_embed."
USER, END, REPLY = "<|user|>", "<|end|>", "<|assistant|>"
APART = ("audio_config", "vision_config", "model_type")  # keys that are not the LLM's
LANGUAGES = {  # those that it was made to hear
    **{"de": "German", "en": "English", "es": "Spanish", "fr": "French", "it": "Italian"},
    **{"ja": "Japanese", "pt": "Portuguese", "zh": "Chinese"},
}
# The authors' words; no file of a checkpoint has them. Those of `READING` read on when joined.
READING = {"transcribe": "Transcribe the audio clip into text."} | {
    f"translate_{code}": f"Translate the audio to {name}." for code, name in LANGUAGES.items()
}
# These words are ours, the names those of the other families.
TASKS = READING | {
    "describe": "Describe the audio.",
    "emotion": "What is the emotion of the speaker?",
    "summary": "Summarize the audio.",
}


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Phi-4-multimodal, in whichever layout."""
    return model_type(path) in (Phi4Multimodal.family, phi4_authors.MODEL_TYPE)


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, a tokenizer without the tokens of a prompt, or another chat template.
    """
    folder = Phi4Multimodal(path)
    return folder.checkpoint(
        audio_tokens=lambda: folder.rows, least_samples=folder.settings.win_length, long="each"
    )


class Phi4Multimodal(Folder):
    """The checkpoint taken apart."""

    family = "phi4_multimodal"
    tower_type = "phi4_multimodal_audio"
    tower, front = "phi4_conformer", "phi4_mel"
    bridge = {"layers.0": "up_proj_for_speech", "layers.2": "down_proj_for_speech"}
    unused = (*llm_files.UNUSED, rf"^{IMAGES}", r"_proj_for_vision_speech\.", phi4_authors.LORA)

    @cached_property
    def config(self) -> Any:
        """transformers' config, also of a folder in the authors' own layout."""
        if not phi4_authors.is_theirs(self.plain):
            return super().config
        return phi4_authors.config(self.plain, self.file)

    @cached_property
    def text_config(self) -> Any:
        """A Phi-3's, whose settings are those of the whole model."""
        plain = {name: value for name, value in self.config.to_dict().items() if name not in APART}
        return Phi3Config(**plain)

    @property
    def tower_config(self) -> dict[str, Any]:
        """The tower's sizes."""
        audio = self.audio_config
        return {name: getattr(audio, name, None) for name in phi4_conformer.DEFAULTS}

    @cached_property
    def settings(self) -> Settings:
        """The feature extractor's.

        Raises:
            BadCheckpoint: they are of another kind of spectrogram, or not those of the tower.
        """
        file, given = extractor(self.path)
        wanted = {
            "sampling_rate": RATE,
            "feature_size": self.tower_config["input_size"],
            "audio_compression_rate": self.tower_config["time_reduction"],
            "audio_downsample_rate": 1,
            "audio_feat_stride": 1,
        }
        odd = [
            f"{name} {str(given[name])[:40]} and not {want}"
            for name, want in wanted.items()
            if given.get(name, want) != want
        ]
        usual = Settings(feature_size=int(wanted["feature_size"]))
        mine = Settings(**{name: given.get(name, value) for name, value in vars(usual).items()})
        odd += mine.faults()
        if odd:
            raise BadCheckpoint(f"{file} says {', '.join(odd)}, as {self.file} wants it")
        return mine

    @property
    def piece(self) -> int:
        """Frames that the tower hears at a time."""
        return phi4_conformer.ROWS * self.tower_config["time_reduction"]

    @property
    def rows(self) -> int:
        """Embeddings of the longest clip."""
        frames = (LONGEST - self.settings.win_length) // self.settings.hop_length + 1
        return -(-frames // self.tower_config["time_reduction"])

    @cached_property
    def window_samples(self) -> int:
        """See `Files.window_samples`; the tower has none."""
        _ = self.settings
        return LONGEST

    def mel(self) -> Wrapper:
        lead = self.tower_config["time_reduction"]
        return Phi4Mel(self.settings, piece=self.piece, lead=lead, most=LONGEST)

    def build_tower(self) -> Wrapper:
        return phi4_conformer.build(self.tower_config)

    def build_projector(self) -> Projector:
        audio, hidden = self.audio_config, self.spec.hidden
        if audio.downsample_rate != 1:
            raise BadCheckpoint(
                f"{self.file} says audio_config.downsample_rate: {audio.downsample_rate}; known is "
                "1, as transformers joins no rows"
            )
        return Projector([audio.hidden_size, hidden, hidden], frames="rows", activation="gelu")

    def published(self, name: str) -> str:
        """See `Files.published`: the names of the other families, those of images as they are."""
        name = phi4_authors.published(name)
        if name.startswith(IMAGES):
            return name
        inner = name.removeprefix(AUDIO)
        if inner == name:
            return LLM + name
        encoder = inner.removeprefix("encoder.")
        return BRIDGE + inner if encoder == inner else TOWER + encoder

    def aliases(self, module: str) -> tuple[str, ...]:
        """See `Files.aliases`."""
        for prefix, theirs in ((LLM, ""), (TOWER, f"{AUDIO}encoder."), (BRIDGE, AUDIO)):
            if module.startswith(prefix):
                module = theirs + module.removeprefix(prefix)
                break
        return module, module.removeprefix("model.")  # the authors' LoRA is of the inner model

    @cached_property
    def adapter(self) -> Adapter | None:
        """The speech LoRA: in its folder, or of the authors' layout among the weights.

        A fine-tuned model may have one beside its weights in its place.

        Raises:
            BadCheckpoint: there are both; see `Files.adapter` as well.
        """
        beside, speech = super().adapter, self.path / SPEECH
        inside = [name for name in self._stored.shapes if ".lora_" in name and ".speech." in name]
        if inside:
            speech = Path(self._stored.where)
        elif not peft_folder.is_beside(speech):
            return beside
        if beside is not None:
            raise BadCheckpoint(
                f"{beside.where} and {speech} are two adapters for the same LLM; leave the "
                "one in place that it shall answer with"
            )
        if not inside:
            return self.read_adapter(speech)
        return contract.read(
            {name: self._stored[name] for name in inside},
            phi4_authors.lora(self.plain, self.file),
            self._stored.where,
            rename=self.published,
            aliases=self.aliases,
        )

    @property
    def folders(self) -> list[Path]:
        """See `Files.folders`."""
        speech = self.path / SPEECH
        return super().folders + ([speech] if speech.is_dir() else [])

    def notes(self) -> tuple[str, ...]:
        """See `Folder.notes`."""
        found: list[str] = []
        if not self.adapter:
            found.append(
                f"there is no {SPEECH} in {self.path}: the LLM is exported as it is without, which "
                "was not trained to listen"
            )
        images = sum(name.startswith(IMAGES) for name in self.weights.shapes)
        heads = sum("_for_vision_speech." in name for name in self.weights.shapes)
        more = f", and so is {VISION}" if (self.path / VISION).is_dir() else ""
        if images or heads or more:
            found.append(
                f"{images} weights of images are left out, and {heads} of the projector that hears "
                f"beside an image{more}: there are no images here"
            )
        return (*super().notes(), *found)

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        placeholder = self.placeholder(tokenizer, self.audio_config.audio_token_id)
        self.tokens_there(tokenizer, (USER, END, REPLY))
        prompt = PromptFacts(
            turn=f"{USER}{{clips}}{{}}{END}{REPLY}",
            clip=placeholder,
            placeholder=placeholder,
            end=END,
            tasks=TASKS,
            joined=tuple(sorted(READING.values())),
        )
        template = chat_template.template(self.path, placeholder)
        if template is not None:
            wanted = (written(prompt, each) for each in _PROOF)
            asked = (messages_of(each, placeholder) for each in _PROOF)
            template.check(list(zip(asked, wanted, strict=True)))
        return prompt


# Conversations that a folder's template must write as the prompt has them.
_PROOF: tuple[Conversation, ...] = (
    ((None, "What do\nyou  hear?"),),
    ((None, None, " Both? \n"),),
    (("Hello.",), (None, "What is said?")),
    ((None, "One."), (" Two. ",), ("Three.",)),
)
