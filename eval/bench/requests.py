"""The requests that a real engine is sent: a table's prompts, with lengths that fit the machine."""

from dataclasses import replace

import numpy as np

from lengthpred.data.table import Rows
from lengthpred.data.tokens import TokenCounter
from lengthpred.errors import DataError

__all__ = ["name_of_model", "rows_to_send"]


def rows_to_send(
    rows: Rows,
    counter: TokenCounter,
    *,
    model: str | None = None,
    scale: float = 1.0,
    max_prompt_tokens: int = 512,
    max_output_tokens: int | None = None,
) -> Rows:
    """The rows that can be sent as a prompt alone: with text, without a conversation before it.

    What is sent is what predictors see. Prompts are counted in the engine's tokens, longer ones
    are left out; lengths are multiplied by `scale` and cut at `max_output_tokens`. `model` is the
    target model, None for what the rows name. Raises DataError where no row is left.
    """
    alone = np.array([bool(r.prompt.strip()) and not r.context for r in rows.requests], bool)
    kept = rows.take(alone)
    counts = np.array(counter.count([r.prompt for r in kept.requests]), np.int64)
    short = (counts > 0) & (counts <= max_prompt_tokens)
    kept, counts = kept.take(short), counts[short]
    if not len(kept):
        raise DataError(
            f"no row has a prompt of its own of at most {max_prompt_tokens:,} tokens: raise "
            "--max-prompt-tokens, or give a table whose rows have no context"
        )
    requests = [
        replace(
            r,
            prompt_tokens=int(n),
            max_tokens=None,
            model=r.model if model is None else model,
            reply_tokens=(),
        )
        for r, n in zip(kept.requests, counts, strict=True)
    ]
    scaled = np.maximum(np.rint(scale * kept.lengths), 1)
    lengths = np.minimum(scaled, max_output_tokens or np.inf).astype(np.int64)
    return replace(kept, requests=requests, lengths=lengths)


def name_of_model(rows: Rows, default: str) -> str:
    """The target model that all rows name, so that predictors know whose lengths they predict."""
    models = {request.model for request in rows.requests}
    return next(iter(models)) if len(models) == 1 and models != {""} else default
