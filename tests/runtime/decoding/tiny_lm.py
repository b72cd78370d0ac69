"""A tiny random Llama, as our decoder and as transformers' `generate` with the same options."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, GenerationConfig, LlamaConfig, LlamaForCausalLM

from alm.decoding import search
from alm.decoding.options import Options
from alm.decoding.steps import Sequence as Answer

VOCAB = 48
WIDTH = 16
EOS = (frozenset({7}), frozenset({3, 11, 40}), frozenset(range(0, VOCAB, 6)))
PAD = VOCAB - 1


@cache
def language_model(seed: int) -> Any:
    """A random Llama whose logits lie far enough apart that there are no ties."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.6,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def embeddings(seed: int, batch: int) -> torch.Tensor:
    """Prompts [batch, 5, width] that have no token ids."""
    return torch.randn(batch, 5, WIDTH, generator=torch.Generator().manual_seed(seed))


def ids(seed: int, batch: int, length: int = 9) -> torch.Tensor:
    """Prompts [batch, length] of few different tokens, so that n-grams come again."""
    made = torch.Generator().manual_seed(seed)
    return torch.randint(1, 12, (batch, length), generator=made)


class Torch:
    """A decoder over a transformers model; it has read its prompts when it is made."""

    def __init__(self, seed: int, prompts: torch.Tensor) -> None:
        self.model = language_model(seed)
        self.cache = DynamicCache(config=self.model.config)
        whole = {"inputs_embeds" if prompts.is_floating_point() else "input_ids": prompts}
        self.logits = self._run(**whole)
        self.fed: list[int] = []  # rows of each step

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """See `decoding.Decoder`."""
        assert token_ids.dtype == np.int64
        self.fed.append(len(token_ids))
        return self._run(input_ids=torch.from_numpy(token_ids)[:, None])

    def reorder(self, rows: np.ndarray) -> None:
        """See `decoding.Decoder`."""
        self.cache.batch_select_indices(torch.from_numpy(rows))

    def _run(self, **feeds: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            found = self.model(**feeds, cache=self.cache, use_cache=True)
        return found.logits[:, -1].numpy()


def answers(*said: Any, **named: Any) -> list[Answer]:
    """What every row of `search.decode` ends with, in the rows' order."""
    ended: dict[int, Answer] = {}
    for step in search.decode(*said, **named):
        ended.update(step.ended)
    return [ended[row] for row in range(len(ended))]


def ours(seed: int, prompts: torch.Tensor, options: Options, eos: frozenset[int]) -> list[Answer]:
    """Our answers to prompts of embeddings or of ids."""
    decoder, by_ids = Torch(seed, prompts), not prompts.is_floating_point()
    return answers(
        decoder.logits,
        decoder,
        options,
        eos_ids=eos,
        prompts=prompts.tolist() if by_ids else (),
        lengths=[prompts.shape[1]] * len(prompts),
    )


def config(options: Options, eos: frozenset[int]) -> dict[str, Any]:
    """The options as transformers' `generate` takes them."""
    default = Options()
    made: dict[str, Any] = {"max_new_tokens": options.max_new_tokens, "top_k": options.top_k}
    for field in fields(Options):
        value = getattr(options, field.name)
        if value != getattr(default, field.name) and field.name != "seed":
            made[field.name] = _plain(value)
    if options.max_length is not None:
        del made["max_new_tokens"]
    if options.sequence_bias:
        made["sequence_bias"] = {sequence: bias for sequence, bias in options.sequence_bias}
    if options.watermarking_config:
        made["watermarking_config"] = dict(options.watermarking_config)
    return made | {"eos_token_id": sorted(eos) or None, "pad_token_id": PAD}


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def theirs(
    seed: int, prompts: torch.Tensor, options: Options, eos: frozenset[int]
) -> tuple[list[list[int]], Any]:
    """The new tokens of transformers, each row alone, and the scores of beams."""
    rows: list[list[int]] = []
    scores: list[float] = []
    for prompt in prompts.split(1):
        by_ids = not prompt.is_floating_point()
        kind = "input_ids" if by_ids else "inputs_embeds"
        with warnings.catch_warnings():
            # That penalties see only new tokens of embeddings is just what is wanted.
            warnings.simplefilter("ignore", UserWarning)
            found = language_model(seed).generate(
                **{kind: prompt},
                attention_mask=torch.ones(prompt.shape[:2], dtype=torch.int64),
                generation_config=GenerationConfig(
                    **config(options, eos), return_dict_in_generate=True, output_scores=True
                ),
            )
        new = found.sequences[0].tolist()[prompt.shape[1] if by_ids else 0 :]
        rows.append(cut(new, eos))
        if options.num_beams > 1:
            scores.append(float(found.sequences_scores[0]))
    return rows, scores or None


def cut(tokens: list[int], eos: frozenset[int]) -> list[int]:
    """Tokens up to their EOS, that one included: what follows is padding."""
    ends = [place for place, token in enumerate(tokens) if token in eos]
    return tokens[: ends[0] + 1] if ends else tokens


def reason(tokens: Sequence[int], eos: frozenset[int]) -> str:
    """Why an answer of these tokens ends."""
    return "eos" if tokens[-1] in eos else "length"
