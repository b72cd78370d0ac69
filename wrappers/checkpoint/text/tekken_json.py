"""Mistral's tekken.json as a tokenizer.json: byte pairs by rank, special tokens before them."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from alm.errors import BadCheckpoint
from wrappers.checkpoint.plain_files import read_json
from wrappers.checkpoint.text.tiktoken_file import shown_bytes

FILLER = "<SPECIAL_{}>"  # what Mistral calls special tokens that a file leaves out

# Special tokens of files that list none, as those up to version 7 may.
USUAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)


def converted(path: Path) -> str:
    """The text of a tokenizer.json that tokenizes as tekken.json at `path` does.

    Text becomes bytes; within each match of the pattern those two neighbours are joined whose
    union has the lowest rank, again and again. Ids are ranks behind the special tokens.

    Raises:
        MissingFile: no such file.
        BadCheckpoint: it is none, or contradicts itself.
    """
    fields = read_json(path)
    try:
        special, ranks = _specials(fields), _ranks(fields)
        tokenizer = _tokenizer(special, ranks, str(fields["config"]["pattern"]))
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise BadCheckpoint(f"{path} is no tekken.json: {reason}") from error
    except Exception as error:  # tokenizers raises plain Exception
        raise BadCheckpoint(f"{path} could not be converted: {error}") from error
    return tokenizer.to_str()


def _specials(fields: dict[str, Any]) -> list[str]:
    """The special tokens by their ids, those that no file names filled in."""
    count = int(fields["config"]["default_num_special_tokens"])
    listed = fields.get("special_tokens")
    named = {i: text for i, text in enumerate(USUAL)}
    if listed is not None:
        named = {int(token["rank"]): str(token["token_str"]) for token in listed}
    if len(named) > count or any(not 0 <= i < count for i in named):
        raise ValueError(f"its special tokens are not the first {count}")
    special = [named.get(i, FILLER.format(i)) for i in range(count)]
    if len(set(special)) != count:
        raise ValueError("two of its special tokens are the same")
    return special


def _ranks(fields: dict[str, Any]) -> dict[bytes, int]:
    """The pieces with their ranks; more than the model has room for are cut off."""
    config = fields["config"]
    room = int(config["default_vocab_size"]) - int(config["default_num_special_tokens"])
    pieces = [base64.b64decode(entry["token_bytes"], validate=True) for entry in fields["vocab"]]
    ranks = {piece: rank for rank, piece in enumerate(pieces[:room])}
    if room < 256 or len(ranks) != room:
        raise ValueError(f"{len(ranks)} different pieces are not the {room} that it says")
    if any(entry.get("rank") != i for i, entry in enumerate(fields["vocab"][:room])):
        raise ValueError("its pieces are not in the order of their ranks")
    if any(bytes([i]) not in ranks for i in range(256)):
        raise ValueError("not every byte is a piece")
    return ranks


def _tokenizer(special: list[str], ranks: dict[bytes, int], pattern: str) -> Tokenizer:
    shown = shown_bytes()
    text = {piece: "".join(shown[byte] for byte in piece) for piece in ranks}
    vocab = {text[piece]: rank + len(special) for piece, rank in ranks.items()}
    both = [name for name in special if name in vocab]
    if both:
        raise ValueError(f"{both[0]!r} is a special token and a piece")
    vocab |= {name: i for i, name in enumerate(special)}
    # Any two pieces that make a third may meet; of such pairs the third's rank decides.
    pairs = [
        (rank, text[piece[:cut]], text[piece[cut:]])
        for piece, rank in ranks.items()
        for cut in range(1, len(piece))
        if piece[:cut] in ranks and piece[cut:] in ranks
    ]
    pairs.sort(key=lambda pair: pair[0])
    merges = [(left, right) for _, left, right in pairs]
    # A match that is a piece is taken whole, even where no joining leads to it.
    tokenizer = Tokenizer(BPE(vocab, merges, fuse_unk=False, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    tokenizer.add_special_tokens(
        [AddedToken(name, normalized=False, special=True) for name in special]
    )
    return tokenizer
