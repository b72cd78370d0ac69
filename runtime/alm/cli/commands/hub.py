"""alm push and alm pull: a folder to the model hub, and from there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alm.cli import terminal
from alm.cli.arguments import Debug
from alm.errors import BadOption


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What export.py wrote.")],
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository on the hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is new.")
    ] = False,
    revision: Annotated[
        str, typer.Option(metavar="BRANCH", help="Made if there is none; without it, main.")
    ] = "",
    base_model: Annotated[
        list[str] | None,
        typer.Option(metavar="ORG/NAME", help="The checkpoint's model; may be repeated."),
    ] = None,
    licence: Annotated[
        str,
        typer.Option("--license", metavar="ID", help="As the hub names it: apache-2.0, llama3.2."),
    ] = "",
    wer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Word errors for the card, as bench/accuracy.py writes."),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card/--no-card", help="Write the model card, or leave it as it is.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the card, and upload nothing.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Upload a folder to the model hub: the files that its manifest lists, and a model card."""
    from alm.hub import card as cards
    from alm.hub import names, upload

    repo = names.repo(name)
    if repo.revision != names.MAIN:
        raise BadOption(
            f"name the branch by an option: alm push {folder} {repo.id} --revision BRANCH"
        )
    repo = names.repo(f"{repo.id}@{revision}") if revision else repo
    if licence and licence.lower() not in cards.LICENCES:
        raise BadOption(f"--license is one of {', '.join(cards.LICENCES)}, not {licence!r:.80}")
    said = cards.Said(
        base_models=tuple(names.repo(model).id for model in base_model or []),
        licence=licence.lower(),
        errors=cards.read_errors(wer) if wer else (),
    )
    terminal.speak_utf8()
    parcel = upload.packed(folder, repo, said, card)
    if dry_run:
        for file in parcel.files:
            terminal.tell(f"would upload {file}")
        print(cards.text(parcel.manifest, repo, said) if card else "", end="")
        return
    print(upload.push(parcel, repo, private))


def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ORG/NAME[@REVISION]", help="The model; a revision is a branch, tag or commit."
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Where to; without it, huggingface_hub's cache."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Fetch a model of the hub, every file held against its hash, and print its folder."""
    from alm.hub import cached, names

    terminal.speak_utf8()
    print(cached.pull(names.repo(name.removeprefix(names.PREFIX)), folder))
