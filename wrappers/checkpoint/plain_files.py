"""Text files of a checkpoint as plain data: JSON and YAML within limits, and what Git left out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from alm.errors import BadCheckpoint, MissingFile

MOST_JSON = 1 << 27  # bytes; the largest published tokenizer.json has 34 MB
MOST_YAML = 1 << 20  # bytes; PyYAML needs a second for each of some 100 kB
POINTER = b"version https://git-lfs.github.com/spec/"  # how every Git LFS pointer begins
ESCAPED = re.compile(r"\\[uU](?:0000)?[dD][89a-fA-F]")  # of JSON and YAML alike
REASON = 200  # characters of a parser's complaint that are repeated


def refuse_pointer(path: Path) -> None:
    """Refuse what Git LFS leaves in the place of a file that was not downloaded.

    Raises:
        MissingFile: `path` is such a pointer.
        BadCheckpoint: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(len(POINTER))
    except OSError as error:
        raise unreadable(path, error) from error
    if start == POINTER:
        raise MissingFile(
            f"{path} is a Git LFS pointer and not the file itself; run `git lfs pull` in "
            f"{path.parent}"
        )


def unreadable(path: Path, error: OSError) -> BadCheckpoint:
    """The sentence about a file that the system does not let us read."""
    return BadCheckpoint(f"{_short(path)} cannot be read: {error.strerror or error}")


def no_model(what: str, error: Exception) -> BadCheckpoint:
    """The sentence about a config that transformers does not take, for any reason it may raise."""
    reason = " ".join(str(error).split())[:REASON] or type(error).__name__
    return BadCheckpoint(f"{what} describes no model: {reason}")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        MissingFile: no such file, or a Git LFS pointer.
        BadCheckpoint: too large, not JSON, nested too deeply, or not an object.
    """
    value = _read(path, "JSON", MOST_JSON, json.loads)
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path} holds no JSON object")
    return value


def read_yaml(path: Path) -> Any:
    """The value in a YAML file, which is plain data.

    Raises:
        MissingFile: no such file, or a Git LFS pointer.
        BadCheckpoint: too large, no YAML, or nested too deeply.
    """
    return _read(path, "readable YAML", MOST_YAML, yaml.safe_load)


def extractor(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The settings of a folder's feature extractor and their file; empty where there are none.

    Since its version 5 transformers saves them as a section of processor_config.json.
    """
    for name, section in (
        ("preprocessor_config.json", ""),
        ("processor_config.json", "feature_extractor"),
        ("processor_config.json", "audio_processor"),
    ):
        file = folder / name
        settings = read_json(file) if file.is_file() else {}
        settings = settings.get(section) if section else settings
        if isinstance(settings, dict) and settings:
            return file, settings
    return folder / "preprocessor_config.json", {}


def _read(path: Path, kind: str, most: int, parse: Callable[[str], Any]) -> Any:
    if not exists(path) or not path.is_file():
        raise MissingFile(f"there is no file {_short(path)}")
    refuse_pointer(path)
    try:
        size = path.stat().st_size
        if size > most:
            raise BadCheckpoint(
                f"{path} has {size} bytes; at most {most} are read of a {kind} file"
            )
        text = path.read_text("utf-8")
        value = parse(text)
        if ESCAPED.search(text):
            # half a pair is no text: no tokenizer and no file takes it
            json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode()
        return value
    except OSError as error:
        raise unreadable(path, error) from error
    except RecursionError as error:
        raise BadCheckpoint(f"{path} is no {kind}: it is nested too deeply") from error
    except BadCheckpoint:
        raise
    except UnicodeEncodeError as error:
        raise BadCheckpoint(f"{path} holds half a surrogate pair, which is no text") from error
    except (ValueError, yaml.YAMLError) as error:  # also digits without end, and impossible dates
        reason = " ".join(str(error).split())[:REASON]
        verb = "not" if kind == "JSON" else "no"
        raise BadCheckpoint(f"{path} is {verb} {kind}: {reason}") from error


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; names that no system allows are not there.

    Raises:
        BadCheckpoint: the folder that it is in may not be read.
    """
    try:
        return path.exists()
    except PermissionError as error:
        raise unreadable(path, error) from error
    except (OSError, ValueError):  # too long a name, or a NUL in it
        return False


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= REASON else f"{text[:REASON]}..."
