"""The command alm-run: it answers a prompt about clips, or many of them in a conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from alm.cli import arguments as args
from alm.cli import exit_status
from alm.cli.arguments import FORMATS, SUBTITLES
from alm.cli.terminal import STDIN, speak_utf8, tell
from alm.errors import BadOption
from alm.hub import local

running = typer.Typer(**args.PLAIN)


def run() -> int:
    """The console script `alm-run`."""
    return exit_status.run(running, name="alm-run")


@running.command()
def answer(
    words: args.Words = None,
    engine: args.Engine = Path("artifacts"),
    chat: args.Chat = False,
    as_json: args.AsJson = False,
    form: args.Form = "text",
    live: args.Live = False,
    pace: args.Pace = None,
    delay: args.Delay = None,
    align: args.Align = None,
    each: args.Each = None,
    language: args.Language = "",
    verbatim: args.Verbatim = False,
    show_thinking: args.ShowThinking = False,
    merge_audio: args.MergeAudio = 100.0,
    adapter: args.Adapter = "",
    schema: args.Schema = None,
    grammar: args.Grammar = None,
    regex: args.Regex = "",
    list_tasks: args.ListTasks = False,
    max_new_tokens: args.MaxNewTokens = None,
    num_beams: args.NumBeams = None,
    repetition_penalty: args.RepetitionPenalty = None,
    length_penalty: args.LengthPenalty = None,
    min_new_tokens: args.MinNewTokens = None,
    no_repeat_ngram_size: args.NoRepeatNgramSize = None,
    sample: args.Sample = None,
    temperature: args.Temperature = None,
    top_p: args.TopP = None,
    top_k: args.TopK = None,
    min_p: args.MinP = None,
    seed: args.Seed = None,
    system: args.System = "",
    stop: args.Stop = None,
    more: args.More = None,
    threads: args.Threads = 0,
    provider: args.Provider = "auto",
    cache: args.Cache = None,
    draft: args.Draft = None,
    build_first: args.BuildFirst = False,
    joins: args.Joins = "exact",
    gate: args.Gate = None,
    truncate: args.Truncate = False,
    max_audio_seconds: args.MaxAudioSeconds = 3600.0,
    debug: args.Debug = False,
    version: args.Version = False,
) -> int:
    """Answer a prompt about clips. The text goes to stdout as it comes, and nothing else does."""
    given = locals()
    if list_tasks:
        from alm.cli.request import print_tasks

        print_tasks(local.folder(engine, True), as_json)
        return 0
    clips, prompt = (words or [], "") if live else _split(words or [], chat, engine)
    as_json = as_json if live else _formatted(form, as_json, chat, clips)
    if pace is not None and not live:
        raise BadOption("--pace is for --live, which hears a clip as if it came")
    if chat and (each is not None or language or align):
        raise BadOption(
            "--chat is one conversation: --each, --together, --language and --align are not for it"
        )
    options = args.decoding(given)
    import alm
    from alm.artifacts.manifest import check_run
    from alm.artifacts.manifest import load as load_manifest
    from alm.audio import merging, reader
    from alm.cli import request
    from alm.generation import keywords
    from alm.host import processor

    # Words that contradict each other are refused before a model of gigabytes is loaded.
    manifest = load_manifest(local.folder(engine, True))
    check_run(manifest, engine)
    keywords.choose(manifest.facts.generation, options)
    processor.check_threads(threads)
    merging.check(merge_audio)
    shapes = _shapes(schema, grammar, regex, live or form in SUBTITLES)
    reader.check_options(manifest.facts.audio.rate, "first", max_audio_seconds)
    speak_utf8()
    groups = [clips]
    if live:
        from alm.cli.live import check_live

        others = {"--chat": chat, "--align": align, "--language": language, "--cache": cache}
        others |= {"--delay": delay is not None}
        others |= {"--format": form != "text", "--each": each is not None, "--truncate": truncate}
        others |= {"--draft": draft, "--adapter": adapter, "--show-thinking": show_thinking}
        others |= {"--gate": gate is not None, "--joins": joins != "exact"}
        others |= {"--stop": stop, "--system": system}
        others |= {"--merge-audio": merge_audio != merging.WHOLE}
        check_live(manifest.facts, clips, pace, language, verbatim, others)
    elif not chat:
        groups = request.meant(clips, prompt, manifest.facts.prompt, each, language, verbatim)
    if not live and not request.there(groups):
        return exit_status.FAILED
    engine = local.folder(engine)
    if build_first:
        from alm.tensorrt import build as building

        building.build(engine, building.Settings(provider, sizes=None), tell, tell)
    bounds: dict[str, Any] = {
        "truncate": truncate,
        "joins": joins,
        "gate": gate,
        "max_audio_seconds": max_audio_seconds,
        "verbatim": verbatim,
        "language": language,
        "delay": delay,
        "show_thinking": show_thinking,
        "merge_audio": merge_audio,
        "adapter": adapter,
        "stop": stop or (),
        "system": system,
    } | shapes
    model = alm.load(engine, provider, threads, align=align, cache=cache, draft=draft)
    if live:
        from alm.cli.live import listen

        listen(model, clips, as_json, pace, bounds, options)
        return 0
    if chat:
        from alm.cli.chat import converse

        converse(model.chat(**bounds, **options), clips, as_json)
        return 0
    if form in SUBTITLES:
        return request.subtitles(model, groups[0], prompt, form, bounds | options)
    return request.answer(model, groups, prompt, as_json, bounds | options)


def _shapes(schema: Path | None, grammar: Path | None, regex: str, spoken: bool) -> dict[str, Any]:
    """What answers follow, as keyword arguments."""
    if schema is None and grammar is None and not regex:
        return {}
    if spoken:
        raise BadOption(
            "--schema, --grammar and --regex shape an answer, and neither --live nor subtitles"
        )
    from alm.grammar import files

    return files.given(schema, grammar, regex)


def _formatted(form: str, as_json: bool, chat: bool, clips: list[str]) -> bool:
    """Whether answers are printed as JSON."""
    if form not in FORMATS:
        raise BadOption(f"--format is one of {', '.join(FORMATS)}, not {form!r:.40}")
    if as_json and form in SUBTITLES:
        raise BadOption(f"--json and --format {form} are two forms of one answer")
    if form in SUBTITLES and (chat or len(clips) != 1):
        raise BadOption(f"--format {form} is one file of one clip: run alm-run for each")
    return as_json or form == "json"


def _split(words: list[str], chat: bool, engine: Path) -> tuple[list[str], str]:
    """The clips and the prompt, which in a conversation comes later."""
    if chat:
        if STDIN in words:
            raise BadOption("--chat reads what you ask from stdin, so no clip can come from there")
        return words, ""
    if len(words) < 2:
        lacking = "PROMPT" if words else "AUDIO and PROMPT"
        raise BadOption(f"wanted {lacking}; try: alm-run --engine {engine} audio.wav transcribe")
    if words[:-1].count(STDIN) > 1:
        raise BadOption("only one clip can come from stdin")
    return words[:-1], words[-1]
