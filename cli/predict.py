"""`lengthpred predict`: ask an artifact, and look at what it answers."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lengthpred.cli.console import print_json, stderr, stdout
from lengthpred.cli.named import say_origin
from lengthpred.errors import DataError, SettingsError

if TYPE_CHECKING:
    from lengthpred.base import Predictor, Request
    from lengthpred.distribution import LengthDistribution

__all__ = ["register"]

LEVELS = (0.1, 0.5, 0.9, 0.99)
BATCH = 1024
STDIN = Path("-")
BARS = 40


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("predict")(predict)


def predict(
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help="A prompt; -: from stdin.", show_default=False),
    ] = None,
    artifact: Annotated[
        str, typer.Option(help="A predictor: DIR, ORG/NAME, or the one that comes with lengthpred.")
    ] = "default",
    file: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines: request bodies, or objects with a prompt; - reads them from stdin. "
            "Answers are JSON lines, of the length that no limit stops.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="The target model of TEXT, or of lines that name none.", show_default=False
        ),
    ] = "",
    runner: Annotated[str, typer.Option(help="For --file: local, or ray for Ray Data.")] = "local",
    workers: Annotated[
        int | None, typer.Option(help="ray: how many workers (2).", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Predict how many tokens the answer will have."""
    from lengthpred.artifact import load
    from lengthpred.runner import check_runner

    if (text is None) == (file is None):
        raise SettingsError("give either a prompt in quotes or --file with JSON lines")
    if file is None and (runner != "local" or workers is not None):
        raise SettingsError("--runner and --workers are for --file")
    count = check_runner(runner, workers)
    predictor = load(artifact)
    say_origin(predictor)
    if file is not None:
        batches = _batches(file, model)
        local = map(partial(_answered, predictor), batches)
        # Workers run in other folders, and a branch may move before they start.
        place = getattr(predictor, "origin", "") or os.path.abspath(artifact)
        _print_answers(local if runner == "local" else _over_ray(place, batches, count))
        return
    from lengthpred.base import Request

    # A shell ends what it writes with a line's end that nobody meant to ask.
    prompt = _text_of(STDIN).rstrip("\r\n") if text == str(STDIN) else text or ""
    request = Request(prompt=prompt, model=model)
    answer = predictor.predict([request])
    _say_unseen(_unseen(predictor, [request]), 1)
    if as_json:
        print_json(_summaries([request], answer)[0])
    else:
        _draw(answer)


def _text_of(file: Path) -> str:
    """The whole text of a file, or of stdin. Raises DataError where it cannot be read."""
    try:
        raw = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{_name_of(file)} cannot be read: {error}") from error


def _name_of(file: Path) -> str:
    return "standard input" if file == STDIN else str(file)


def _batches(file: Path, model: str) -> list[list["Request"]]:
    # All lines are read before the first answer: a bad one ends the command with nothing printed.
    requests = [r if r.model else replace(r, model=model) for r in _read(file)]
    return [requests[start : start + BATCH] for start in range(0, len(requests), BATCH)]


def _answered(predictor: "Predictor", batch: list["Request"]) -> tuple[list[dict[str, Any]], int]:
    """What to print for each request, and how many name a model that was never seen."""
    return _summaries(batch, predictor.predict(batch)), _unseen(predictor, batch)


def _over_ray(
    artifact: str, batches: list[list["Request"]], workers: int
) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """`_answered` for each batch, in order, by workers that load the artifact themselves."""
    from lengthpred.runner import in_order, over_ray

    return in_order(over_ray(partial(_worker, artifact), batches, workers))


def _worker(artifact: str) -> Callable[[list["Request"]], tuple[list[dict[str, Any]], int]]:
    from lengthpred.artifact import load

    return partial(_answered, load(artifact))


def _print_answers(answers: Iterable[tuple[list[dict[str, Any]], int]]) -> None:
    """One JSON line on stdout for each request."""
    count, unseen = 0, 0
    for summaries, new in answers:
        count, unseen = count + len(summaries), unseen + new
        for summary in summaries:
            # Escapes: an id may hold half a surrogate pair, which is no UTF-8.
            sys.stdout.write(json.dumps(summary) + "\n")
    _say_unseen(unseen, count)


def _read(file: Path) -> Iterator["Request"]:
    from lengthpred.data.table import request_from_row
    from lengthpred.openai_body import request_from_body

    # Not splitlines: JSON strings may hold the other characters that it breaks lines at.
    lines, name = _text_of(file).split("\n"), _name_of(file)
    found = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = True
        try:
            row: Any = json.loads(line)
            if not isinstance(row, dict):
                raise DataError("it is not an object")
            named = (row.get(name) for name in ("id", "custom_id"))
            id = next((n for n in named if isinstance(n, str) and n), str(number))
            row = next((row[n] for n in ("body", "request") if isinstance(row.get(n), dict)), row)
            own = isinstance(row.get("prompt"), str) and "messages" not in row
            if own:
                yield request_from_row(_checked({**row, "id": row.get("id") or id}))
            else:
                yield request_from_body(row, id=id)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{name}, line {number} is not JSON ({error.msg}): give one JSON object a line"
            ) from error
        except (ValueError, RecursionError, DataError) as error:
            raise DataError(f"{name}, line {number}: {error}") from error
    if not found:
        raise DataError(f"{name} is empty: give JSON lines, each with a prompt or messages")


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """The row with numbers in range. Raises DataError for what a table's column could not hold."""
    from lengthpred.openai_body import as_count, as_number

    for name in ("id", "model", "context", "tenant"):
        if not isinstance(row.get(name, ""), str | None):
            raise DataError(f"'{name}' must be a text, not {json.dumps(row[name])}")
    replies = row.get("reply_tokens") or []
    if not isinstance(replies, list) or any(
        type(n) is not int or as_count(n) is None for n in replies
    ):
        given = json.dumps(replies)
        given = given if len(given) <= 80 else f"{given[:80]}…"
        raise DataError(f"'reply_tokens' must be a list of lengths, not {given}")
    # As in a request body: what is no number in range counts as not given.
    counts = {name: as_count(row.get(name)) for name in ("prompt_tokens", "max_tokens")}
    return {**row, **counts, "temperature": as_number(row.get("temperature"))}


def _summaries(requests: list["Request"], answer: "LengthDistribution") -> list[dict[str, Any]]:
    quantiles, means = answer.quantile(LEVELS).round(1).tolist(), answer.mean().round(1).tolist()
    return [
        {
            "id": request.id,
            "mean": mean,
            **{f"p{round(level * 100)}": value for level, value in zip(LEVELS, row, strict=True)},
        }
        for request, mean, row in zip(requests, means, quantiles, strict=True)
    ]


def _unseen(predictor: "Predictor", requests: list["Request"]) -> int:
    """How many requests name a model that the predictor was not trained on."""
    from lengthpred.artifact import unseen_models

    unseen = unseen_models(predictor, requests)
    return 0 if unseen is None else int(unseen.sum())


def _say_unseen(count: int, of: int) -> None:
    if count:
        stderr.print(
            f"note: {count:,} of {of:,} requests name a model that this predictor never saw; "
            "they are answered as for all models together",
            highlight=False,
            soft_wrap=True,
        )


def _draw(answer: "LengthDistribution") -> None:
    """The mean, the quantiles, and a bar for each octave of lengths."""
    import numpy as np

    quantiles = answer.quantile(LEVELS)[0]
    stdout.print(
        f"[bold]{answer.median()[0]:,.0f}[/] tokens (median), mean {answer.mean()[0]:,.0f}; "
        f"80 % between {quantiles[0]:,.0f} and {quantiles[2]:,.0f}, "
        f"99 % below {quantiles[3]:,.0f}",
        highlight=False,
    )
    ends = np.array([15, 31, 63, 127, 255, 511, 1023, 2047, 4095, 8191, 1 << 30])
    shares = np.diff([0.0, *(float(answer.cdf(end)[0]) for end in ends)])
    full = max(shares.max(), 1e-9)
    low = 0
    for end, share in zip(ends, shares, strict=True):
        name = f"{low:,} - {end:,}" if end < 1 << 30 else f"{low:,} and more"
        bar = "█" * round(BARS * share / full) or ("▏" if share > 0.0005 else "")
        stdout.print(f"{escape(name):>15} [cyan]{bar:<{BARS}}[/] {share:6.1%}", highlight=False)
        low = int(end) + 1
