"""The `lengthpred` command: registers one file a command, turns errors into exit codes.

Exit codes: 0 good, 1 a defect of ours, 2 bad input, 3 a regression against a baseline, 130 stopped
by Ctrl-C.
"""

import os
import sys
from importlib import import_module
from typing import Annotated

import typer
from rich.markup import escape

from lengthpred.cli.console import stderr
from lengthpred.errors import LengthPredError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Predict how long a language model's answer will be, before it runs.",
)
COMMANDS = (
    *("bench", "data", "doctor", "drift", "evaluate", "label", "predict", "push", "quickstart"),
    *("serve", "simulate", "train", "zoo"),
)
# Each module has a function `register(app)`. Heavy imports wait inside the commands.
for _name in COMMANDS:
    import_module(f"lengthpred.cli.{_name}").register(app)


def _version(wanted: bool) -> None:
    if wanted:
        import lengthpred

        typer.echo(f"lengthpred {lengthpred.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand == "serve":
        return  # vLLM takes the process over: it finds the environment as it was
    # Other libraries' progress bars, which come between ours and what is said.
    os.environ.setdefault("TQDM_DISABLE", "1")
    if context.invoked_subcommand != "bench":
        # LightGBM's threads would else spin while they wait for each other: a busy machine loses
        # tens of times the time that an idle one gains. Read when the OpenMP library is loaded.
        # Not for vLLM, which bench starts: on a CPU a fixed batch took 1.4 times as long.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit code 2."""
    try:
        # Typer itself ends with 2 for wrong usage, whichever copy of click it brings.
        app()
    except LengthPredError as error:
        _fail(escape(str(error)), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a folder that cannot be written, a full disk
        _fail(escape(f"{error.filename or 'a file'}: {error.strerror or error}"), 2)
    except Exception as error:
        if os.environ.get("LENGTHPRED_TRACEBACK"):
            raise
        defect = (
            f"a defect in lengthpred: {type(error).__name__}: {error} "
            "(set LENGTHPRED_TRACEBACK=1 to see where, and please report it)"
        )
        _fail(escape(defect), 1)


def _fail(message: str, code: int) -> None:
    stderr.print(f"[bold red]error:[/] {message.strip()}", highlight=False, soft_wrap=True)
    sys.exit(code)
