"""alm pack: a folder as one file, or in the form that something else wants it in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alm.cli import terminal
from alm.cli.arguments import Debug
from alm.errors import BadOption
from alm.hub import local


def pack(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What export.py wrote, or hub:org/name.")
    ],
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE.alm", help="Write one file, which runs as it is.")
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Sign FILE.alm with this private key, Ed25519 in PEM."),
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write a model repository of Triton there."),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the answering model in Triton.")] = "alm",
    gpu: Annotated[bool, typer.Option("--gpu", help="Run the graphs on GPUs.")] = False,
    batch: Annotated[
        int, typer.Option(help="Rows at once, of graphs that were exported for any batch.")
    ] = 8,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of each graph; 0 lets ONNX Runtime choose.")
    ] = 0,
    stream: Annotated[
        bool,
        typer.Option("--stream/--no-stream", help="Answers may come in pieces (decoupled)."),
    ] = True,
    link: Annotated[
        bool, typer.Option("--link", help="Hard links to DIR's files in the place of copies.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write a folder as one file, or as a model repository of NVIDIA's Triton Inference Server."""
    if (file is None) == (triton is None):
        raise BadOption(
            f"pack it as one of two: one file, alm pack {folder} model.alm, or Triton's model "
            f"repository, alm pack {folder} --triton OUT"
        )
    terminal.speak_utf8()
    if file is not None:
        _one_file(local.folder(folder), file, sign)
        return
    assert triton is not None
    if sign is not None:
        raise BadOption("--sign is for one file, FILE.alm, and not for a repository of Triton's")
    from alm.triton import repository
    from alm.triton.settings import Settings

    settings = Settings(name, gpu, batch, threads, stream, link)
    made = repository.pack(local.folder(folder), triton, settings, terminal.tell)
    for note in made.notes:
        terminal.tell(f"note: {note}")
    if link:
        terminal.tell(
            f"note: {folder} and {triton} share their files, and alm refuses files with several "
            "links unless ALM_HARD_LINKS=1 is set"
        )
    for model, what in made.models.items():
        print(f"{model}  {what}")
    print(f"\ntritonserver --model-repository={triton}")


def _one_file(folder: Path, file: Path, key: Path | None) -> None:
    from alm.packing import pack as packing

    made = packing.pack(folder, file, key, terminal.tell)
    for name in made.left_out:
        terminal.tell(f"note: {name} is left out: engines are for one machine, see alm build")
    signed = f", signed by {made.signer}" if made.signer else ""
    print(f"{file}: {made.members} members, {terminal.size(made.bytes)}{signed}")
    print(f"sha256 {made.sha256}")
