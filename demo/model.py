"""The demo model in training: the exporter's own wrappers, run on clips of any length."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from alm.facts import PromptFacts, TokenFacts
from alm.text.prompt import Prompter
from demo import phrases
from demo.data import MELS, PER_WINDOW, WINDOW_FRAMES, Batch
from wrappers.bridges.qformer import QFormer, Shape
from wrappers.encoders.beats import Beats
from wrappers.encoders.whisper import Whisper
from wrappers.layers.decoder import Decoder
from wrappers.llms.llama import spec

WIDTH, AUDIO_WIDTH, BRIDGE_WIDTH, LLM_WIDTH = 176, 96, 176, 176
BRIDGE_HEADS, BRIDGE_LAYERS = 4, 2
BOS, EOS = 1, 2
IGNORE = -100
WHISPER = transformers.WhisperConfig(
    vocab_size=100,
    num_mel_bins=MELS,
    d_model=WIDTH,
    encoder_layers=4,
    encoder_attention_heads=4,
    encoder_ffn_dim=3 * WIDTH,
    max_source_positions=WINDOW_FRAMES,
    decoder_layers=1,
    decoder_attention_heads=4,
    decoder_ffn_dim=WIDTH,
    max_target_positions=16,
)
BEATS = dict(
    input_patch_size=16,
    embed_dim=64,
    conv_bias=False,
    encoder_layers=2,
    encoder_embed_dim=AUDIO_WIDTH,
    encoder_ffn_embed_dim=3 * AUDIO_WIDTH,
    encoder_attention_heads=4,
    activation_fn="gelu",
    layer_norm_first=False,
    deep_norm=True,
    conv_pos=16,
    conv_pos_groups=4,
    relative_position_embedding=True,
    num_buckets=64,
    max_distance=256,
    gru_rel_pos=True,
)


def llama(vocab: int) -> transformers.LlamaConfig:
    """A Llama of three layers."""
    return transformers.LlamaConfig(
        vocab_size=vocab,
        hidden_size=LLM_WIDTH,
        intermediate_size=448,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=0,
    )


@dataclass(frozen=True)
class Heard:
    """What the model makes of a batch of clips."""

    speech: Tensor  # [batch, frames, width]
    audio: Tensor  # [batch, tokens, width]
    embeds: Tensor  # [batch, windows, llm width]


class Hearing(nn.Module):
    """All trained parts. The heads and the tables of ideal hearing serve training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = phrases.tokenizer()
        vocab = self.tokenizer.get_vocab_size()
        self.whisper = Whisper(WHISPER.to_dict())
        self.beats = Beats(BEATS, most_frames=2 * WINDOW_FRAMES)
        self.qformer = QFormer(
            Shape(
                frames=WINDOW_FRAMES,
                speech_width=WIDTH,
                audio_width=AUDIO_WIDTH,
                hidden=BRIDGE_WIDTH,
                heads=BRIDGE_HEADS,
                layers=BRIDGE_LAYERS,
                intermediate=3 * BRIDGE_WIDTH,
                queries=1,
                kernel=PER_WINDOW,
                stride=PER_WINDOW,
                out=LLM_WIDTH,
            )
        )
        self.decoder = Decoder(spec(llama(vocab)))
        self.word_head = nn.Linear(WIDTH, len(phrases.WORDS) + 2)  # none, and an onset
        self.sound_head = nn.Linear(AUDIO_WIDTH, len(phrases.SOUNDS) + 1)
        self.register_buffer("ideal_words", _table(len(phrases.WORDS) + 1))  # the last: none
        self.register_buffer("ideal_sounds", _table(len(phrases.SOUNDS) + 1))
        _initialise(self)
        prompt = PromptFacts(
            turn=phrases.TURN, clip=phrases.CLIP, placeholder="<SpeechHere>", tasks=phrases.ASKED
        )
        self.prompter = Prompter(self.tokenizer, prompt, TokenFacts(bos=BOS))

    def hear(self, batch: Batch) -> Heard:
        """Through both encoders and the bridge, at the length of the batch."""
        speech, audio = self.speech(batch), self.audio(batch)
        lengths = batch.fbank_lengths // (2 * PER_WINDOW) * PER_WINDOW
        return Heard(speech, audio, self.qformer(speech, audio, lengths))

    def speech(self, batch: Batch) -> Tensor:
        """Whisper's features [batch, frames, width]."""
        fit(self, batch.log_mel.shape[2] // 2)
        return listen(self.whisper, batch.log_mel)

    def audio(self, batch: Batch) -> Tensor:
        """BEATs' features [batch, tokens, width]."""
        return self.beats(batch.fbank, batch.fbank_lengths)[0]

    def ideal(self, batch: Batch) -> Tensor:
        """What the bridge would say if it heard everything [batch, windows, llm width]."""
        return self.ideal_of(batch.window_words, batch.window_sounds)

    def ideal_of(self, words: Tensor, sounds: Tensor) -> Tensor:
        """The same from masses of words [batch, windows, words] and sounds [batch, windows]."""
        none = (1 - words.sum(2, keepdim=True)).clamp(min=0)
        return torch.cat([words, none], 2) @ self.ideal_words + self.ideal_sounds[sounds]  # pyright: ignore

    def answer_loss(self, embeds: Tensor, tasks: list[str], answers: list[str]) -> Tensor:
        """Cross entropy of the answers' tokens."""
        ids, targets, start = self._written(embeds.shape[1], tasks, answers)
        x = F.embedding(ids, self.decoder.lm_head.weight)
        x = torch.cat([x[:, :start], embeds.to(x.dtype), x[:, start + embeds.shape[1] :]], 1)
        hidden = read(self.decoder, x)
        asked = targets != IGNORE
        return F.cross_entropy(self.decoder.lm_head(hidden[asked]).float(), targets[asked])

    def _written(
        self, windows: int, tasks: list[str], answers: list[str]
    ) -> tuple[Tensor, Tensor, int]:
        """Token ids (zeros for the audio), the ids to predict, and where the audio begins."""
        rows, wanted, start = [], [], 0
        for task, answer in zip(tasks, answers, strict=True):
            prompt = self.prompter.build(task)
            said = self.tokenizer.encode(f" {answer}", add_special_tokens=False).ids + [EOS]
            before, after = prompt.pieces
            start = len(before)
            asked = [*before, *[0] * windows, *after]
            rows.append(asked + said)
            wanted.append([IGNORE] * (len(asked) - 1) + said + [IGNORE])
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        targets = torch.tensor([row + [IGNORE] * (longest - len(row)) for row in wanted])
        return ids, targets, start

    @torch.no_grad()
    def answer(self, embeds: Tensor, task: str, most: int = 24) -> list[str]:
        """Greedy answers; without a cache, as it is only for watching the training."""
        prompt = self.prompter.build(task)
        table = self.decoder.lm_head.weight
        rows = len(embeds)
        before, after = (table[torch.tensor(p)].expand(rows, -1, -1) for p in prompt.pieces)
        x = torch.cat([before, embeds.float(), after], 1)
        said = torch.full((rows, most), EOS)
        done = torch.zeros(rows, dtype=torch.bool)
        for step in range(most):
            best = self.decoder.lm_head(read(self.decoder, x)[:, -1]).argmax(-1)
            said[:, step] = torch.where(done, EOS, best)
            done |= best == EOS
            if done.all():
                break
            x = torch.cat([x, table[best][:, None]], 1)
        return [self.tokenizer.decode(row.tolist()).strip() for row in said]


def _table(entries: int) -> Tensor:
    """Random directions, nearly at right angles to each other."""
    draw = torch.Generator().manual_seed(7)
    return 0.5 * torch.randn(entries, LLM_WIDTH, generator=draw)


def _initialise(model: Hearing) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=0.05)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    nn.init.normal_(model.decoder.lm_head.weight, std=0.08)
    nn.init.normal_(model.qformer.speech_query_tokens, std=0.5)
    for conv in (model.whisper.conv1, model.whisper.conv2):
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # sound as loud as positions
    _look_nearby(model.whisper)


def _look_nearby(whisper: Whisper, offsets: tuple[int, ...] = (-8, -3, 3, 8)) -> None:
    """Begin with heads that look a few frames back or ahead: to find that out takes longest.

    Positions are sines as in Whisper. A query turned by w * offset in each pair (sin, cos) has with
    the keys the products sum_w cos(w (i + offset - j)), which are largest at j = i + offset.
    """
    pairs = WIDTH // 2
    hertz = 10_000 ** (-torch.arange(pairs) / (pairs - 1))
    angles = torch.arange(WINDOW_FRAMES)[:, None] * hertz
    whisper.embed_positions.weight.data.copy_(0.5 * torch.cat([angles.sin(), angles.cos()], 1))
    size = WIDTH // len(offsets)
    chosen = torch.linspace(0.08 * pairs, 0.5 * pairs, size // 2).long()  # w from 0.5 to 0.01
    rows = 2 * torch.arange(size // 2)
    for layer in whisper.layers:
        query, key = (getattr(layer.self_attn, name).weight.data for name in ("q_proj", "k_proj"))
        for head, offset in enumerate(offsets):
            at = head * size + rows
            turn = hertz[chosen] * offset
            for matrix, angle in ((query, turn), (key, 0 * turn)):
                matrix[at, chosen] += 1.2 * angle.cos()
                matrix[at, pairs + chosen] += 1.2 * angle.sin()
                matrix[at + 1, pairs + chosen] += 1.2 * angle.cos()
                matrix[at + 1, chosen] -= 1.2 * angle.sin()


def add_lora(net: Hearing, rank: int, alpha: int) -> None:
    """Put LoRA beside the queries and values of the decoder, as SALMONN has it."""
    import peft

    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["q_proj", "v_proj"])
    peft.inject_adapter_in_model(config, net.decoder)


def fit(model: Hearing, frames: int) -> None:
    """Set the bridge, whose graph is for one window, to clips of this many frames."""
    model.qformer.shape = replace(model.qformer.shape, frames=frames)
    model.qformer.cut.shape = model.qformer.shape


def listen(whisper: Whisper, log_mel: Tensor) -> Tensor:
    """Whisper's forward with as many positions as the clip has."""
    x = F.gelu(whisper.conv2(F.gelu(whisper.conv1(log_mel)))).transpose(1, 2)
    x = x + whisper.embed_positions.weight[: x.shape[1]]
    for layer in whisper.layers:
        x = layer(x)
    return whisper.layer_norm(x)


def read(decoder: Decoder, x: Tensor) -> Tensor:
    """The decoder over whole rows without a cache [batch, seq, hidden], normed, for the head."""
    shape = decoder.spec
    steps = torch.arange(x.shape[1])[None]
    distance = (steps[:, :, None] - steps[:, None, :])[:, None]
    rope = decoder.rope(steps, torch.tensor([x.shape[1]]))
    nothing = torch.zeros(x.shape[0], shape.kv_heads, 0, shape.head_dim)
    for layer in decoder.model.layers:
        x, _, _ = layer(x, rope, distance, torch.tensor([0]), nothing, nothing)
    return decoder.model.norm(x)
