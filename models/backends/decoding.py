"""Writing answers with a causal language model, many at once, no longer than needed.

Rows of a batch that have ended leave it, so that a batch costs about the sum of its answers and not
rows x the longest of them. Whatever else is in a batch, a row's answer is its own: its randomness
is given from outside, a number for each token.
"""

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lengthpred.base import FloatArray
from lengthpred.models.backends.base import seconds_left
from lengthpred.models.backends.loading import Loaded

__all__ = ["Answer", "Forward", "Job", "uniforms", "write"]

# Tokens of prompts that go through the model in one call, at most and at first where there is a
# deadline: logits and attention of a long batch must fit into memory, and a call cannot be stopped.
CALL_TOKENS = 4096
FIRST_CALL_TOKENS = 64
# Calls grow as long as one takes less than this part of what is left until the deadline.
CALL_SHARE = 0.025
# A batch is made smaller when this part of its rows has ended: the copy of the cache costs, too.
ENDED_SHARE = 0.25


@dataclass
class Answer:
    """Tokens written so far, the end token not among them, and whether that came."""

    tokens: list[int] = field(default_factory=list)
    ended: bool = False


@dataclass(frozen=True)
class Job:
    """A prompt, and what is wanted of it.

    prompt    token ids, at least one
    budget    most tokens of an answer
    uniforms  float64 (answers, budget) in [0, 1), one to choose each token with; None takes the
              likeliest, in one answer
    """

    prompt: list[int]
    budget: int
    uniforms: FloatArray | None = None

    @property
    def answers(self) -> int:
        """How many are wanted."""
        return 1 if self.uniforms is None else len(self.uniforms)


class Forward:
    """One batch of left-padded prompts on its way through the model. Not thread-safe."""

    def __init__(self, loaded: Loaded, prompts: Sequence[Sequence[int]], room: int) -> None:
        """`room` is the number of tokens that may follow the prompts."""
        import torch

        self.model = loaded.model
        self.device = loaded.model.device
        width = max(map(len, prompts))
        # Padding is masked: any id that the model knows will do.
        ids = torch.zeros((len(prompts), width), dtype=torch.long)
        mask = torch.ones((len(prompts), width + room), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, : width - len(prompt)] = 0
        self.prompts, self.mask = ids.to(self.device), mask.to(self.device)
        self.position = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.seen = 0
        self.cache: Any = None
        accepted = inspect.signature(self.model.forward).parameters
        self.takes_positions = "position_ids" in accepted
        # Logits of the last token only, under the name that this version of transformers has.
        names = {"logits_to_keep", "num_logits_to_keep"} & set(accepted)
        self.keep = {name: 1 for name in names}

    def feed(self, ids: Any, **wanted: Any) -> Any:
        """The model's output for the next tokens, int64 (rows, k)."""
        begin, self.seen = self.seen, self.seen + ids.shape[1]
        if self.takes_positions:
            wanted["position_ids"] = self.position[:, begin : self.seen]
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask[:, : self.seen],
            past_key_values=self.cache,
            use_cache=True,
            **self.keep,
            **wanted,
        )
        self.cache = output.past_key_values
        if isinstance(self.cache, tuple):  # transformers before 5
            from transformers import DynamicCache

            self.cache = DynamicCache.from_legacy_cache(self.cache)
        return output

    def read_prompts(self, until: float | None) -> bool:
        """Feed the prompts but for their last tokens; False when the deadline came before."""
        rows, width = self.prompts.shape
        tokens = CALL_TOKENS if until is None else FIRST_CALL_TOKENS
        while self.seen < width - 1:
            begun = time.monotonic()
            if until is not None and begun >= until:
                return False
            end = min(self.seen + max(tokens // rows, 1), width - 1)
            self.feed(self.prompts[:, self.seen : end])
            left = seconds_left(until, begun)
            if left is not None and time.monotonic() - begun < left * CALL_SHARE:
                tokens = min(2 * tokens, CALL_TOKENS)
        return True

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; one may be taken more than once."""
        import torch

        index = torch.tensor(rows, device=self.device)
        self.mask, self.position = self.mask[index], self.position[index]
        if self.cache is not None:
            self.cache.reorder_cache(index)


def write(
    loaded: Loaded, jobs: Sequence[Job], temperature: float, until: float | None
) -> list[list[Answer]]:
    """The answers to each job: to its end token, its budget, or `until` on the monotonic clock."""
    import torch

    answers = [[Answer() for _ in range(job.answers)] for job in jobs]
    rows = [(i, k) for i, job in enumerate(jobs) for k in range(job.answers) if job.budget > 0]
    if not rows:
        return answers
    forward = Forward(loaded, [job.prompt for job in jobs], max(job.budget for job in jobs))
    if not forward.read_prompts(until):
        return answers
    forward.keep_rows([i for i, _ in rows])
    last = forward.prompts[[i for i, _ in rows], -1:]
    step, done = 0, [False] * len(rows)
    while rows and (until is None or time.monotonic() < until):
        logits = forward.feed(last).logits[:, -1].float()
        if temperature == 0:
            chosen = logits.argmax(-1)
        else:
            # Rows that are done but still there take any number.
            numbers = [
                0.5 if over else jobs[i].uniforms[k, step]  # type: ignore[index]
                for (i, k), over in zip(rows, done, strict=True)
            ]
            chosen = _choose(logits, torch.tensor(numbers, dtype=torch.float64), temperature)
        step += 1
        for row, token in enumerate(chosen.tolist()):
            if done[row]:
                continue
            i, k = rows[row]
            if token in loaded.ends:
                answers[i][k].ended = done[row] = True
            else:
                answers[i][k].tokens.append(token)
                done[row] = step == jobs[i].budget
        last = chosen[:, None]
        if sum(done) >= ENDED_SHARE * len(rows):
            stay = [row for row, over in enumerate(done) if not over]
            rows, done = [rows[row] for row in stay], [False] * len(stay)
            if rows:
                forward.keep_rows(stay)
                last = last[torch.tensor(stay, device=last.device)]
    return answers


def _choose(logits: Any, numbers: Any, temperature: float) -> Any:
    """Inverse transform sampling: int64 (rows,) for logits (rows, v) and numbers in [0, 1)."""
    import torch

    # In float64: a sum over a large vocabulary must not lose its small parts.
    sums = torch.softmax(logits / temperature, -1).cumsum(-1, dtype=torch.float64)
    wanted = numbers.to(sums.device)[:, None] * sums[:, -1:]
    found = torch.searchsorted(sums, wanted, right=True)[:, 0]
    return found.clamp(max=logits.shape[1] - 1)


def uniforms(key: bytes, n: int, budget: int, seed: int) -> FloatArray:
    """float64 (n, budget) in [0, 1); more of either goes on from the same numbers."""
    words = np.frombuffer(key, np.uint32).tolist()
    rows = [np.random.default_rng([seed % 2**64, k, *words]).random(budget) for k in range(n)]
    return np.array(rows).reshape(n, budget)
