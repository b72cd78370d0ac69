"""The command alm: it looks at artifacts, measures them, and makes engines of them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from alm.cli import exit_status, terminal
from alm.cli.arguments import PLAIN, Debug, Version
from alm.cli.commands.batch import batch
from alm.cli.commands.doctor import doctor
from alm.cli.commands.hub import pull, push
from alm.cli.commands.onefile import unpack, verify
from alm.cli.commands.pack import pack
from alm.cli.commands.serve import serve
from alm.cli.terminal import audio_file, speak_utf8, tell
from alm.errors import BadOption
from alm.hub import local

MOST_MEMORY = 2**20  # GiB

app = typer.Typer(**PLAIN)
app.command()(pack)
app.command()(push)
app.command()(pull)

AsJson = Annotated[bool, typer.Option("--json", help="Print everything as data, and no tables.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write everything as JSON there.")
]


def main() -> int:
    """The console script `alm`."""
    return exit_status.run(app, name="alm")


app.command()(batch)


@app.callback(invoke_without_command=True)
def _alm(context: typer.Context, version: Version = False) -> None:
    """alm-edge: audio language models on the device."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def inspect(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What export.py wrote, or hub:org/name.")
    ],
    part: Annotated[str, typer.Option(help="Only this part.")] = "",
    as_json: AsJson = False,
    out: Out = None,
    netron: Annotated[
        str, typer.Option(metavar="PART", help="Serve this part's graph in Netron on localhost.")
    ] = "",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Where Netron is served.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Hold every file against its hash.")
    ] = True,
    debug: Debug = False,
) -> int:
    """Show what is in an artifact folder, and whether it is whole."""
    from alm.cli.reports import inspection

    terminal.check_out(out)
    speak_utf8()
    where = inspection.PORT if port is None else port
    return inspection.show(
        local.folder(folder),
        part=part,
        as_json=as_json,
        out=out,
        netron=netron,
        port=where,
        check=check,
    )


@app.command()
def lint(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What export.py wrote, or hub:org/name.")
    ],
    target: Annotated[str, typer.Option(help="Where it will run: trt-jetpack6, ...")],
    part: Annotated[list[str], typer.Option(help="Only this part; may be repeated.")] = [],  # noqa: B006
    as_json: AsJson = False,
    out: Out = None,
    debug: Debug = False,
) -> int:
    """Hold every node against what the target's backend takes; exit status 1 if one fails."""
    from alm.cli.reports import lint_report

    terminal.check_out(out)
    speak_utf8()
    return lint_report.show(local.folder(folder), target, part, as_json, out)


@app.command()
def build(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What export.py wrote, or hub:org/name.")
    ],
    backend: Annotated[str, typer.Option(help="tensorrt or tensorrt-rtx.")] = "tensorrt",
    part: Annotated[list[str], typer.Option(help="Only this part; may be repeated.")] = [],  # noqa: B006
    batch: Annotated[int, typer.Option(min=1, help="Rows at once: clips, or beams.")] = 1,
    context: Annotated[
        int, typer.Option(min=0, help="Positions in the cache; 0: 2048, or the model's.")
    ] = 0,
    prompt: Annotated[
        int, typer.Option(min=0, help="Positions of a prompt; 0: 512, or the context.")
    ] = 0,
    workspace: Annotated[
        int, typer.Option(min=0, metavar="MIB", help="GPU memory for kernels' work; 0: as much.")
    ] = 0,
    memory: Annotated[
        float, typer.Option(min=0, metavar="GIB", help="What a build may take; 0: what is free.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands; TensorRT need not be here.")
    ] = False,
    graphs: Annotated[
        bool, typer.Option("--graphs", help="The same, and write the graphs that trtexec takes.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Build what is up to date as well.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Build engines of TensorRT for this machine, and print what does the same by trtexec."""
    from alm.tensorrt import build as building
    from alm.tensorrt.profiles import Sizes

    if not memory <= MOST_MEMORY:  # also what is no number
        raise BadOption(f"--memory is 0 to {MOST_MEMORY} GiB, not {memory:g}")
    settings = building.Settings(
        backend=backend,
        parts=tuple(part),
        sizes=Sizes(batch, context, prompt),
        workspace=workspace * 2**20,
        memory=int(memory * 2**30),
        force=force,
    )
    speak_utf8()
    folder = local.folder(folder)
    if dry_run or graphs:
        building.dry_run(folder, settings, print, write=graphs)
    else:
        building.build(folder, settings, tell, print)


@app.command()
def bench(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What export.py wrote, or hub:org/name.")
    ],
    audio: Annotated[
        str | None, typer.Argument(metavar="AUDIO", help="What is heard; noise if none is given.")
    ] = None,
    seconds: Annotated[
        str, typer.Option(metavar="S,S", help="Lengths it is cut or repeated to.")
    ] = "1,5,10,30,60",
    contexts: Annotated[
        str, typer.Option(metavar="N,N", help="Tokens in the cache when steps are timed.")
    ] = "128,512,1024",
    new_tokens: Annotated[int, typer.Option(min=1, help="Of every answer, ends ignored.")] = 64,
    prompt: Annotated[str, typer.Option(help="What is asked; transcribe if unsaid.")] = "",
    warmup: Annotated[int, typer.Option(min=0, help="Runs before those that count.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Runs that count.")] = 5,
    as_json: AsJson = False,
    out: Out = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the stages of each clip.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads for the backend; 0 lets it choose.")
    ] = 0,
    provider: Annotated[
        str, typer.Option(help="auto, or what runs the graphs: cpu, cuda, openvino, tensorrt.")
    ] = "auto",
    debug: Debug = False,
) -> None:
    """Measure time and memory of every stage, cold and warm, against what the machine can do."""
    from alm.bench import measure as measuring
    from alm.cli.reports import bench_tables

    plan = measuring.read_plan(seconds, contexts, new_tokens, prompt, warmup, repeats)
    terminal.check_out(out, picture)
    speak_utf8()
    with ExitStack() as stack:
        source = stack.enter_context(audio_file(audio)) if audio else None
        report = measuring.measure(
            local.folder(folder), source, plan, provider=provider, threads=threads, say=tell
        )
    if picture:
        terminal.write_out(picture, bench_tables.picture(report))
    terminal.give(report, as_json, out, lambda: bench_tables.show(report))


@app.command()
def plan(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What export.py wrote, or hub:org/name.")
    ],
    device: Annotated[str, typer.Option(help="Its name; without one all are listed.")] = "",
    seconds: Annotated[str, typer.Option(metavar="S,S", help="Lengths of clips.")] = "10,30",
    context: Annotated[
        int, typer.Option(min=0, help="Tokens in the cache; 0: the prompt and its answer.")
    ] = 0,
    as_json: AsJson = False,
    out: Out = None,
    debug: Debug = False,
) -> None:
    """Predict memory and speed on a device, precision by precision, from the manifest alone."""
    from alm.cli.reports import plan_tables
    from alm.plan import predict as planning

    terminal.check_out(out)
    speak_utf8()
    lengths = planning.read_seconds(seconds)
    predicted = planning.predict(local.folder(folder, True), device, lengths, context)
    terminal.give(predicted, as_json, out, lambda: plan_tables.show(predicted))


app.command()(serve)
app.command()(doctor)
app.command()(verify)
app.command()(unpack)
