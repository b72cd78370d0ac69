"""Models whose shapes are published, as Hugging Face folders have them; weights are made elsewhere.

Where the shapes come from stands at each. Templates and the tokens of a prompt are those that the
tests have from published folders.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import (
    AudioFlamingo3Config,
    GlmAsrConfig,
    GraniteSpeechConfig,
    MossTranscribeDiarizeConfig,
    MossTranscribeDiarizeFeatureExtractor,
    Phi4MultimodalConfig,
    Phi4MultimodalFeatureExtractor,
    PreTrainedConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2AudioConfig,
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
    VoxtralConfig,
    VoxtralRealtimeConfig,
    VoxtralRealtimeFeatureExtractor,
    WhisperFeatureExtractor,
)

from tests.wrappers.families import (
    tiny_granite_speech,
    tiny_phi4_multimodal,
    tiny_qwen2_5_omni,
    tiny_voxtral_realtime,
    tiny_windowed,
)

# What the published config.json say besides the defaults of their classes.
QWEN = dict(
    model_type="qwen2",
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    vocab_size=156032,
)
QWEN3 = dict(
    model_type="qwen3",
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=65536,
    rms_norm_eps=1e-6,
    vocab_size=151936,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    tie_word_embeddings=True,
)
SMALL_TOWER = dict(
    d_model=896,
    encoder_layers=18,
    encoder_attention_heads=14,
    encoder_ffn_dim=3584,
    output_dim=1024,
)
Files = dict[str, Any]  # name -> what is in it, as JSON


@dataclass(frozen=True)
class Published:
    """A model whose shapes are known: what its config.json says besides its class's defaults."""

    kind: type[Any]  # transformers' config
    settings: dict[str, Any]
    specials: tuple[str, ...]  # tokens of its prompts
    audio: str  # the one that stands for a clip's embeddings
    end: str
    template: str = ""
    extractor: Callable[[], Any] = partial(WhisperFeatureExtractor, feature_size=128)
    layers: tuple[str, str] = ("audio_config.encoder_layers", "text_config.num_hidden_layers")
    files: Callable[[Any], Files] = field(default=lambda said: {})  # beside, of its config
    lora: int = 0  # rank of an adapter of the LLM that is beside the weights

    def config(self, layers: int = 0, llm_layers: int = 0) -> PreTrainedConfig:
        """The published shapes; with numbers other than 0, so many layers in tower and LLM."""
        said = json.loads(json.dumps(self.settings))
        for place, count in zip(self.layers, (layers, llm_layers), strict=True):
            if not count:
                continue
            *sections, name = place.split(".")
            inside = said
            for section in sections:
                inside = inside.setdefault(section, {})
            inside[name] = count
        return self.kind(**said)


DEEP = ("audio_config.num_hidden_layers", "text_config.num_hidden_layers")
CHATML = ("<|im_start|>", "<|im_end|>")
ASR = (*CHATML, "<|audio_start|>", "<|audio_pad|>", "<|audio_end|>", "<asr_text>")


def _qwen3_asr(text: dict[str, Any], tower: dict[str, Any]) -> Published:
    sections = dict(audio_config={"model_type": "qwen3_asr_encoder"} | tower)
    return Published(
        Qwen3ASRConfig,
        sections | {"text_config": QWEN3 | text},
        *(ASR, "<|audio_pad|>", "<|im_end|>"),
        extractor=Qwen3ASRFeatureExtractor,
    )


# Phi-4-mini's rope turns 96 of 128 numbers of a head; the published factors are left at one.
PHI_ROPE = dict(
    rope_type="longrope",
    rope_theta=10000.0,
    partial_rotary_factor=0.75,
    short_factor=[1.0] * 48,
    long_factor=[1.0] * 48,
)
MODELS = {
    "qwen2_audio": Published(
        Qwen2AudioConfig,
        dict(audio_config={"model_type": "qwen2_audio_encoder"}, text_config=QWEN),
        (*CHATML, "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"),
        *("<|AUDIO|>", "<|im_end|>"),
    ),
    "voxtral": Published(
        VoxtralConfig,
        dict(audio_config={"model_type": "voxtral_encoder"}, text_config={"model_type": "llama"}),
        ("<s>", "</s>", "[INST]", "[/INST]", "[BEGIN_AUDIO]", "[AUDIO]", "[TRANSCRIBE]"),
        *("[AUDIO]", "</s>"),
        layers=DEEP,
    ),
    "qwen3_asr_0.6b": _qwen3_asr(dict(hidden_size=1024, intermediate_size=3072), SMALL_TOWER),
    "qwen3_asr_1.7b": _qwen3_asr(
        dict(hidden_size=2048, intermediate_size=6144), dict(output_dim=2048)
    ),
    "moss_transcribe_diarize": Published(
        MossTranscribeDiarizeConfig,
        dict(
            audio_config=dict(model_type="moss_transcribe_diarize_audio"),
            text_config=QWEN3
            | dict(hidden_size=1024, intermediate_size=3072, max_position_embeddings=131_072),
        ),
        *(ASR[:-1], "<|audio_pad|>", "<|im_end|>"),
        layers=DEEP,
        extractor=partial(MossTranscribeDiarizeFeatureExtractor, feature_size=80),
    ),
    # GLM-ASR-Nano-2512: the defaults of its classes.
    "glmasr": Published(
        GlmAsrConfig,
        dict(
            audio_config={"model_type": "glmasr_encoder"},
            text_config=dict(
                model_type="llama", vocab_size=59264, hidden_size=2048, intermediate_size=6144,
                num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=4, head_dim=128,
                max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=False,
            ),
        ),
        *(tiny_windowed.GLM_TOKENS, "<|pad|>", "<|endoftext|>", tiny_windowed.GLM_TEMPLATE),
        layers=DEEP,
        files=lambda said: {"processor_config.json": {"max_audio_len": 655}},
    ),
    # Its LLM is a Qwen2.5-7B (arXiv 2507.08128), its tower the default of its class.
    "audioflamingo3": Published(
        AudioFlamingo3Config,
        dict(
            audio_config={"model_type": "audioflamingo3_encoder"},
            text_config=dict(
                model_type="qwen2", vocab_size=152064, hidden_size=3584, intermediate_size=18944,
                num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
                rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            ),
        ),
        *(tiny_windowed.QWEN_TOKENS, "<sound>", "<|im_end|>", tiny_windowed.QWEN_TEMPLATE),
        layers=DEEP,
        files=lambda said: {"processor_config.json": {"max_audio_len": 600}},
    ),
    # granite-4.0-1b-speech, by transcribe.cpp's reports/porting/granite (its config.json, read
    # there in 2026).
    "granite_speech": Published(
        GraniteSpeechConfig,
        dict(
            encoder_config=dict(num_layers=16, output_dim=348),
            projector_config=dict(
                model_type="blip_2_qformer", hidden_size=1024, intermediate_size=4096,
                num_attention_heads=16, num_hidden_layers=2, encoder_hidden_size=1024,
                cross_attention_frequency=1,
            ),
            text_config=dict(
                model_type="granite", vocab_size=100353, hidden_size=2048, intermediate_size=4096,
                num_hidden_layers=40, num_attention_heads=16, num_key_value_heads=4,
                max_position_embeddings=4096, rms_norm_eps=1e-5, embedding_multiplier=12.0,
                logits_scaling=8.0, attention_multiplier=0.0078125, residual_multiplier=0.22,
                tie_word_embeddings=False,
            ),
            has_lora_adapter=False,
            tie_word_embeddings=False,
        ),
        *(tiny_granite_speech.SPECIALS, "<|audio|>", "<|end_of_text|>"),
        tiny_granite_speech.TEMPLATE_4,
        layers=("encoder_config.num_layers", "text_config.num_hidden_layers"),
        files=lambda said: {"processor_config.json": tiny_granite_speech.processor(said)},
    ),
    # Voxtral-Mini-4B-Realtime-2602: the defaults of its classes, as transcribe.cpp's
    # reports/porting/voxtral_realtime has them of its config.json but for the tower's rope.
    "voxtral_realtime": Published(
        VoxtralRealtimeConfig,
        dict(
            audio_config=dict(
                model_type="voxtral_realtime_encoder",
                rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            ),
            text_config={"model_type": "voxtral_realtime_text"},
        ),
        *((), "", "</s>"),
        layers=DEEP,
        extractor=VoxtralRealtimeFeatureExtractor,
        files=lambda said: {"tekken.json": tiny_voxtral_realtime.tekken(128, 32, 1280)},
    ),
    # Qwen2.5-Omni-3B's thinker; the tower is its class's default, and of what sees, which nothing
    # here reads, one layer is made.
    "qwen2_5_omni_3b": Published(
        Qwen2_5OmniThinkerConfig,
        dict(
            audio_config={"output_dim": 2048},
            vision_config=dict(depth=1, out_hidden_size=2048),
            text_config=dict(
                vocab_size=151936, hidden_size=2048, intermediate_size=11008, num_hidden_layers=36,
                num_attention_heads=16, num_key_value_heads=2, tie_word_embeddings=False,
                rope_parameters=dict(
                    rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24]
                ),
            ),
        ),
        *(tiny_qwen2_5_omni.TOKENS, "<|AUDIO|>", "<|im_end|>", tiny_qwen2_5_omni.TEMPLATE),
        extractor=partial(
            WhisperFeatureExtractor, feature_size=128, chunk_length=300, return_attention_mask=True
        ),
    ),
    # Phi-4-multimodal-instruct: the defaults of its classes, Phi-4-mini's 24 heads, and one layer
    # of what sees. Its adapter for speech is beside the weights.
    "phi4_multimodal": Published(
        Phi4MultimodalConfig,
        dict(
            num_attention_heads=24, tie_word_embeddings=True, sliding_window=262144,
            rope_parameters=PHI_ROPE, vision_config={"num_hidden_layers": 1},
        ),
        *(tiny_phi4_multimodal.TOKENS, "<|endoftext11|>", "<|end|>"),
        tiny_phi4_multimodal.TEMPLATE,
        layers=("audio_config.num_blocks", "num_hidden_layers"),
        extractor=Phi4MultimodalFeatureExtractor,
        lora=320,
    ),
}  # fmt: skip


def beside(folder: Path, model: Published, said: Any) -> None:
    """Write what is beside weights, config and tokenizer: template, extractor, processor."""
    files = model.files(said)
    if "audio_processor" not in files.get("processor_config.json", {}):
        model.extractor().save_pretrained(folder)
    if model.template:
        files["chat_template.json"] = {"chat_template": model.template}
    for name, inside in files.items():
        (folder / name).write_text(json.dumps(inside))
