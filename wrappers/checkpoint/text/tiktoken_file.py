"""A vocabulary in tiktoken's form, bytes and their rank on each line, as a tokenizer.json."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from alm.errors import BadCheckpoint, MissingFile
from wrappers.checkpoint.plain_files import MOST_JSON, refuse_pointer, unreadable


def ranks(path: Path) -> dict[bytes, int]:
    """The pieces of the file at `path` with their ranks.

    Raises:
        MissingFile: no such file, or a Git LFS pointer.
        BadCheckpoint: it is none, a byte is no piece, or its ranks are not 0, 1, 2 and so on.
    """
    if not path.is_file():
        raise MissingFile(f"there is no file {path}")
    refuse_pointer(path)
    try:
        if path.stat().st_size > MOST_JSON:
            raise BadCheckpoint(f"{path} has more than the {MOST_JSON} bytes that are read")
        lines = [line.split() for line in path.read_bytes().splitlines() if line]
        found = {base64.b64decode(piece, validate=True): int(rank) for piece, rank in lines}
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, binascii.Error) as error:
        raise BadCheckpoint(
            f"{path} is no tiktoken file: a line is not a piece in base64 and its rank"
        ) from error
    if len(found) != len(lines) or sorted(found.values()) != list(range(len(lines))):
        raise BadCheckpoint(f"{path} does not give {len(lines)} pieces the ranks from 0 on")
    if absent := [byte for byte in range(256) if bytes([byte]) not in found]:
        raise BadCheckpoint(f"{path} has no piece of the byte {absent[0]}")
    return found


def tokenizer(pieces: Mapping[bytes, int], pattern: str, nfc: bool) -> Tokenizer:
    """What tokenizes as tiktoken does with these ranks, and ids that are the ranks.

    Text becomes bytes; within each match of the pattern those two neighbours are joined whose union
    has the lowest rank, again and again.

    Raises:
        BadCheckpoint: tokenizers cannot be made of them.
    """
    shown = shown_bytes()
    text = {piece: "".join(shown[byte] for byte in piece) for piece in pieces}
    # Any two pieces that make a third may meet; of such pairs the third's rank decides.
    pairs = [
        (rank, text[piece[:cut]], text[piece[cut:]])
        for piece, rank in pieces.items()
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    ]
    pairs.sort(key=lambda pair: pair[0])
    merges = [(left, right) for _, left, right in pairs]
    try:
        # A match that is a piece is taken whole, even where no joining leads to it.
        vocab = {text[piece]: rank for piece, rank in pieces.items()}
        made = Tokenizer(BPE(vocab, merges, fuse_unk=False, ignore_merges=True))
    except Exception as error:  # tokenizers raises plain Exception
        raise BadCheckpoint(f"tiktoken's ranks could not be converted: {error}") from error
    made.normalizer = normalizers.NFC() if nfc else None  # pyright: ignore
    made.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    return made


def tokens(names: Iterable[str], *, special: bool) -> list[AddedToken]:
    """Tokens that are found in a text once it is normalized; `special` ones can be kept from it."""
    return [AddedToken(name, normalized=True, special=special) for name in names]


def shown_bytes() -> list[str]:
    """A visible character for each byte, as GPT-2 chose them and ByteLevel expects them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    shown = {byte: chr(byte) for byte in plain}
    shown |= {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [shown[byte] for byte in range(256)]
