"""A chat template rendered by a process of its own, `jinja`, which can be stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from alm.errors import BadCheckpoint
from wrappers.checkpoint.text import jinja

MOST_WAIT = 60.0  # seconds for all conversations; the usual is a fifth of a second
KEPT = 64  # requests whose outcome is remembered


def run(
    source: str,
    variables: Mapping[str, str],
    conversations: Sequence[Mapping[str, Any]],
    where: str,
) -> list[dict[str, str]]:
    """What a template writes of each conversation: {"text"} or {"error"}.

    Args:
        conversations: what each gives to the template beside the variables.
        where: the template's file, for the message.

    Raises:
        BadCheckpoint: it takes more time or memory than any template needs.
    """
    request = {
        "template": source,
        "variables": dict(variables),
        "conversations": list(conversations),
    }
    try:
        return json.loads(_rendered(json.dumps(request)))
    except (subprocess.SubprocessError, ValueError) as error:
        raise BadCheckpoint(
            f"{where}: its chat template takes more than {jinja.MOST_SECONDS} s or "
            f"{jinja.MOST_BYTES >> 20} MB"
        ) from error


@lru_cache(KEPT)
def _rendered(request: str) -> bytes:
    """What the process says; the same is asked again by whoever exports again."""
    command = [sys.executable, "-I", str(jinja.__file__)]
    done = subprocess.run(
        command, input=request.encode(), capture_output=True, timeout=MOST_WAIT, check=True
    )
    return done.stdout
