"""The prompt of alm-run about several clips, and its answers: one about all, or one for each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from alm.cli.exit_status import FAILED
from alm.cli.terminal import STDIN, audio_file, json_text, say, speak_utf8
from alm.errors import AlmError, BadOption, MissingFile
from alm.facts import PromptFacts
from alm.parsing import printable
from alm.text.prompt import MARK
from alm.text.tasks import checked, in_language, task

if TYPE_CHECKING:
    from pathlib import Path

    from alm.generation.model import Model


def meant(
    clips: list[str],
    prompt: str,
    facts: PromptFacts,
    each: bool | None,
    language: str,
    verbatim: bool,
) -> list[list[str]]:
    """The groups of clips that the prompt is about, one group at a time.

    A task is done for each clip. A prompt with a place for each clip is about all of them; any
    other needs `each` set.

    Raises:
        BadOption: it is None there.
        BadPrompt, UnknownName: a prompt that is no text, or nearly a task's name; no such language.
    """
    checked(prompt)
    words = in_language(prompt, language, facts)[0] if language else prompt
    named = None if verbatim else task(words, facts.tasks)
    if each is None and len(clips) > 1:
        for clip in clips if named is None else ():  # a word too many is often taken for a clip
            _check(clip)
        if named is None and MARK not in prompt:
            raise BadOption(
                f"{len(clips)} clips and a prompt that is no task: --each asks it about each clip, "
                f"--together about all at once, and so does an {MARK} in it for each"
            )
        each = named is not None
    return [[clip] for clip in clips] if each else [clips]


def there(groups: Sequence[Sequence[str]]) -> bool:
    """Whether any clip is there; a lack that is not one file of several is raised.

    Raises:
        MissingFile: a clip of the one prompt is not there.
    """
    if len(groups) == 1:
        for clip in groups[0]:
            _check(clip)
        return True
    if any(clip == STDIN or os.path.exists(clip) for clips in groups for clip in clips):
        return True
    for clips in groups:
        _report(clips[0], f"there is no file {clips[0]}; wanted an audio file", as_json=False)
    return False


def answer(
    model: Model,
    groups: Sequence[Sequence[str]],
    prompt: str,
    as_json: bool,
    options: Mapping[str, Any],
) -> int:
    """Print an answer to each group; the exit status is 1 where one of several could not be given.

    Where there are several, every line of text begins with its file's name, as grep's do, and what
    is wrong with a file is printed before the next is answered.
    """
    status = 0
    for clips in groups:
        try:
            _answer(model, clips, prompt, as_json, options, several=len(groups) > 1)
        except AlmError as error:
            if len(groups) == 1 or error.usage:
                raise
            status = FAILED
            _report(clips[0], str(error), as_json)
    return status


def subtitles(
    model: Model, clips: Sequence[str], prompt: str, form: str, options: Mapping[str, Any]
) -> int:
    """Print the answer to a clip as a file of subtitles (`srt` or `vtt`)."""
    from alm.text import segments

    with audio_file(clips[0]) as path:
        result = model.generate([[path]], prompt, **options)[0]
    write = {"srt": segments.srt, "vtt": segments.vtt}[form]
    print(write(result.segments), end="", flush=True)
    notes = [*result.notes]
    own = model.manifest.facts.prompt.time_mark  # its answers name times, or a note says so
    if not own and not segments.words_of(result.segments):
        notes.append("the times are those of whole windows; --align DIR times every word")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _answer(
    model: Model,
    clips: Sequence[str],
    prompt: str,
    as_json: bool,
    options: Mapping[str, Any],
    several: bool,
) -> None:
    push: Callable[[str], None] = _lines(shown(clips[0])) if several else say
    with ExitStack() as stack:
        paths = [stack.enter_context(audio_file(clip)) for clip in clips]
        on_text = None if as_json else push
        result = model.generate([paths], prompt, on_text=on_text, **options)[0]
    if as_json:
        names = [shown(clip) for clip in clips]
        which = {"file": names[0]} if len(names) == 1 else {"files": names}
        print(json_text(which | result.to_json()), flush=True)
        return
    if several and not result.text:
        push("")
    print(flush=True)
    for note in result.notes:
        about = f"{shown(clips[0])}: " if several and clips[0] not in note else ""
        print(f"note: {about}{note}", file=sys.stderr)


def _lines(name: str) -> Callable[[str], None]:
    """Prints pieces of text, the name before each line."""
    begun = False

    def push(piece: str) -> None:
        nonlocal begun
        lead = "" if begun else f"{name}: "
        begun = True
        say(lead + piece.replace("\n", f"\n{name}: "))

    return push


def _report(clip: str, sentence: str, as_json: bool) -> None:
    about = "" if clip in sentence else f"{clip}: "
    print(f"error: {about}{' '.join(sentence.split())}", file=sys.stderr)
    if as_json:
        failed = {"file": shown(clip), "error": shown(sentence)}
        print(json_text(failed), flush=True)


def _check(clip: str) -> None:
    if clip != STDIN and not os.path.exists(clip):
        raise MissingFile(f"there is no file {clip}; wanted an audio file")


def shown(name: str) -> str:
    """A file's name as text that can be printed, were its bytes no UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def print_tasks(engine: Path, as_json: bool) -> None:
    """Print the tasks' names and prompts."""
    from alm.artifacts.manifest import check_run
    from alm.artifacts.manifest import load as load_manifest

    manifest = load_manifest(engine)
    check_run(manifest, engine)
    tasks = manifest.tasks
    speak_utf8()
    if as_json:
        print(json_text(tasks))
        return
    widest = max(map(len, tasks), default=0)
    for name, prompt in tasks.items():
        print(printable(f"{name:{widest}}  {prompt}"))
