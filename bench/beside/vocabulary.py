"""A tokenizer with as many entries as the real one has, and nothing to say."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

SPECIAL = 256  # tokens at the end of the vocabulary, as Llama 3 has them
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"


def tokenizer(vocab: int) -> Tokenizer:
    """A byte-level BPE of that many entries: bytes, pairs and triples of bytes, special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = list(alphabet)
    merges: list[tuple[str, str]] = []
    wanted = vocab - SPECIAL
    for left in words:  # grows while it is walked
        if len(words) >= wanted:
            break
        if len(left) < 3:
            right = alphabet[: wanted - len(words)]
            merges += [(left, each) for each in right]
            words += [left + each for each in right]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    special = [BOS, EOS, *(f"<|reserved_{i}|>" for i in range(2, SPECIAL))]
    made.add_special_tokens([AddedToken(each, special=True) for each in special])
    made.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single=f"{BOS} $A", special_tokens=[(BOS, wanted)]
    )
    return made
