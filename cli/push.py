"""`lengthpred push`: from an artifact to the hub."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lengthpred.cli.console import print_json, stderr, stdout, told_at_the_end

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("push")(push_command)


def push_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The artifact.")],
    repo: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="Its name on the hub; made if it is new.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make it a private one.")] = False,
    revision: Annotated[
        str, typer.Option(help="A branch; made if it is new.", show_default=False)
    ] = "",
    message: Annotated[str, typer.Option(help="Of the commit.", show_default=False)] = "",
    license: Annotated[
        str,
        typer.Option(help="For the model card, such as apache-2.0.", show_default=False),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Publish an artifact with a model card on the Hugging Face hub."""
    from lengthpred.hub.push import push

    with told_at_the_end():
        pushed = push(
            folder, repo, private=private, branch=revision, message=message, license=license
        )
    for note in pushed.notes:
        stderr.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print_json({"url": pushed.url, "name": str(pushed.name), "notes": list(pushed.notes)})
        return
    stdout.print(f"pushed {escape(pushed.url)}", highlight=False, soft_wrap=True)
    stdout.print(f"load it as {escape(str(pushed.name))}", highlight=False, soft_wrap=True)
