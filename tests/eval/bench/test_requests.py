"""Rows as a real engine is sent them."""

from dataclasses import replace

import numpy as np
import pytest

from lengthpred.base import Request
from lengthpred.data.tokens import load_counter
from lengthpred.errors import DataError
from lengthpred.eval.bench.requests import name_of_model, rows_to_send
from tests.eval.cases import make_rows

ROWS = make_rows(40, samples=3)
COUNTER = load_counter("chars/4")


def test_long_prompts_and_conversations_are_left_out() -> None:
    requests = [
        replace(r, context="user: Hi" if i % 4 == 0 else "", reply_tokens=(3,), max_tokens=9)
        for i, r in enumerate(ROWS.requests)
    ]
    requests[1] = Request(prompt="  ")
    found = rows_to_send(
        replace(ROWS, requests=requests), COUNTER, model="m", max_prompt_tokens=200
    )
    counts = COUNTER.count([r.prompt for r in ROWS.requests])
    kept = [i for i in range(40) if i % 4 and i != 1 and counts[i] <= 200]
    assert [r.id for r in found.requests] == [f"r{i}" for i in kept] and 5 < len(kept) < 30
    for request, i in zip(found.requests, kept, strict=True):
        assert request.prompt_tokens == counts[i] and request.model == "m"
        assert (request.max_tokens, request.reply_tokens, request.context) == (None, (), "")
    np.testing.assert_array_equal(found.lengths, ROWS.take(np.array(kept)).lengths)


def test_lengths_are_scaled_and_cut() -> None:
    found = rows_to_send(ROWS, COUNTER, scale=0.1, max_prompt_tokens=9999, max_output_tokens=12)
    assert found.lengths.tolist() == [min(max(round(0.1 * n), 1), 12) for n in ROWS.lengths]
    assert {r.model for r in found.requests} == {"model-0", "model-1"}


def test_nothing_that_can_be_sent_is_an_error() -> None:
    with pytest.raises(DataError, match="max-prompt-tokens"):
        rows_to_send(ROWS, COUNTER, max_prompt_tokens=1)


def test_the_model_is_named_where_there_is_one() -> None:
    assert name_of_model(ROWS, "x") == "x"
    one = replace(ROWS, requests=[replace(r, model="one") for r in ROWS.requests])
    assert name_of_model(one, "x") == "one"
