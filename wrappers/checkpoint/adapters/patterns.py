"""Regular expressions of an adapter's config, tried where they can be stopped before peft has them.

peft takes `target_modules`, `rank_pattern` and the like as regular expressions and matches each of
them with the name of every module. Python's `re` backtracks, so that `(a|a)*b` takes years, and
nothing stops it but the end of its process. All matches are therefore made once in a process with
limits on its time and memory: what ends there ends here, and with the same result.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from alm.errors import BadCheckpoint

SECONDS = 10.0  # for all matches of an adapter, which take some milliseconds
MEMORY = 2**30  # bytes of address space, where the system can limit it
MOST = 10_000  # names or patterns in one setting
PLAIN = re.compile(r"[\w.\-]*")  # names of modules: nothing in them repeats
REMEDY = "name the modules one by one, or merge the adapter with peft and save the whole model"

# How peft puts a setting's text into the expression that it matches; "": as it is, in full.
FORMS = {
    "target_modules": "",
    "exclude_modules": "",
    "modules_to_save": r"(^|.*\.){}($|\..*)",
    "layers_pattern": r"(?:^|.*?\.){}\.(?P<idx>\d+)\.",
    "rank_pattern": r"(.*\.)?({})$",
    "alpha_pattern": r"(.*\.)?({})$",
}
NAMES = ("target_modules", "exclude_modules")  # lists of these are names; a text is a pattern
# Nothing of ours or of other packages is imported: the process starts in some 20 ms.
CHILD = """
import json, re, sys
task = json.load(sys.stdin)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (task["memory"], task["memory"]))
except (ImportError, OSError, ValueError):
    pass
for pattern, full in task["patterns"]:
    for name in task["names"]:
        re.fullmatch(pattern, name) if full else re.match(pattern, name)
"""


def check(
    settings: Mapping[str, Any], names: Iterable[str], where: str, seconds: float = SECONDS
) -> None:
    """Refuse patterns that cannot be matched with these names in a time and memory that are there.

    Args:
        settings: of an adapter, under peft's names.
        names: of modules, as they are matched.
        where: the adapter's file, for the message.
        seconds: for all matches.

    Raises:
        BadCheckpoint: too many of them, none that `re` takes, or beyond the limits.
    """
    patterns: list[tuple[str, bool]] = []  # and whether the whole name must match
    for name, form in FORMS.items():
        value = settings.get(name)
        if isinstance(value, list | tuple | Mapping) and len(value) > MOST:
            raise BadCheckpoint(
                f"{where}: {name} has {len(value)} entries; at most {MOST} are read"
            )
        if isinstance(value, list | tuple) and name in NAMES:
            continue
        entries = value if isinstance(value, Mapping | list) else []
        texts = [value] if isinstance(value, str) else [str(entry) for entry in entries]
        if len(texts) > MOST // 10 or any(not PLAIN.fullmatch(text) for text in texts):
            patterns += [(form.replace("{}", text) if form else text, not form) for text in texts]
    if patterns:
        _try(patterns, sorted(set(names)), where, seconds)


def _try(patterns: list[tuple[str, bool]], names: list[str], where: str, seconds: float) -> None:
    task = json.dumps({"patterns": patterns, "names": names, "memory": MEMORY})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-W", "ignore", "-c", CHILD],
            input=task, capture_output=True, text=True, errors="replace", timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        raise BadCheckpoint(
            f"{where}: its patterns of modules take more than {seconds:g} s to match; {REMEDY}"
        ) from late
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it crashed"])[-1]
        raise BadCheckpoint(
            f"{where}: its patterns of modules cannot be matched ({reason:.200}); {REMEDY}"
        )
