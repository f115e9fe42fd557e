"""What a table holds, in plain values: for `data show`."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from lengthpred.data.table import Table

__all__ = ["summarize"]

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
CLIP = 200  # characters of a prompt in an example


def summarize(table: Table, examples: int = 3) -> dict[str, Any]:
    """Counts, quantiles of the lengths in tokens, and the first rows; one pass, a stream."""
    samples: list[np.ndarray[Any, Any]] = []
    inputs: list[np.ndarray[Any, Any]] = []
    groups: set[int] = set()
    counts = {name: Counter[str]() for name in ("model", "domain", "language")}
    censored = first = ood = 0
    shown: list[dict[str, Any]] = []
    for rows in table.chunks():
        samples.append(rows.lengths)
        inputs.append(
            np.array([r.prompt_tokens for r in rows.requests if r.prompt_tokens is not None], int)
        )
        groups.update(rows.groups.tolist())
        counts["model"].update(request.model for request in rows.requests)
        for name in ("domain", "language"):
            counts[name].update(rows.columns[name].tolist())
        censored += int(rows.censored.sum())
        turns = zip(rows.columns["turn"], rows.requests, strict=True)
        first += sum(not turn and not request.reply_tokens for turn, request in turns)
        ood += int(rows.columns["ood"].sum())
        if len(shown) < examples:
            shown += _examples(rows.take(np.arange(min(len(rows), examples - len(shown)))))
    lengths = np.concatenate(samples)
    return {
        "path": str(table.path),
        "rows": len(table),
        "samples": len(lengths),
        "groups": len(groups),
        "first_turns": first,
        "ood_rows": ood,
        "censored_share": censored / len(lengths),
        **{f"{name}s": dict(_named(counter)) for name, counter in counts.items()},
        "with_prompt_tokens": sum(map(len, inputs)),
        "tokens": {
            "prompt_tokens": _quantiles(np.concatenate(inputs)),
            "output_tokens": _quantiles(lengths),
        },
        "examples": shown,
    }


def _named(counter: Counter[str]) -> Iterable[tuple[str, int]]:
    return ((value or "(none)", count) for value, count in counter.most_common())


def _quantiles(values: np.ndarray[Any, Any]) -> dict[str, float]:
    """min, quantiles, max and mean; zeros when there are no values."""
    values = values if len(values) else np.zeros(1)
    found = {f"p{100 * q:g}": float(np.quantile(values, q)) for q in QUANTILES}
    ends = {"max": float(values.max()), "mean": float(values.mean())}
    return {"min": float(values.min()), **found, **ends}


def _examples(rows: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": request.id,
            "turn": int(rows.columns["turn"][i]),
            "model": request.model,
            "prompt": request.prompt[:CLIP],
            "output_tokens": rows.lengths[rows.owner == i].tolist(),
        }
        for i, request in enumerate(rows.requests)
    ]
