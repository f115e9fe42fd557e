"""A small language model that runs here, in torch, by way of transformers."""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.base import IntArray, Request
from lengthpred.errors import BackendError
from lengthpred.models.backends.base import Source, seconds_left
from lengthpred.models.backends.chat import messages_of
from lengthpred.models.backends.decoding import Answer, Forward, Job, uniforms, write
from lengthpred.models.backends.loading import Loaded, checksum_of, load, locate

__all__ = ["TransformersBackend"]

# Of a text, most characters that are tokenized for a token of the model's context.
CHARACTERS = 32


class TransformersBackend:
    """Answers with any causal language model: a folder, a GGUF file, or an id of the hub.

    A request becomes a chat by the model's own template. One whose files hold no template is a
    base model, and goes on writing after the plain text: the context, a line break, the prompt.
    A prompt that is too long for the model keeps its head and its tail, and leaves room for the
    answer: `cap` tokens, or half of the context where that is less; an answer that fills its room
    is censored there.

    What is written is a function of the seed, of the prompt's tokens and of the number of the
    sample, not of what else was asked; only where two tokens are equally likely to the last digits
    may the size of a batch tell. So two requests of the same text get the same answers.

    Questions wait for one another: a deadline counts that wait, and the loading of the model when
    the first question does that, but does not break the loading off. A request without text is not
    answered: 0 tokens and censored, no text, NaN.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._lock = threading.Lock()
        self._loaded: Loaded | None = None

    def generate_lengths(
        self,
        requests: Sequence[Request],
        n: int,
        temperature: float,
        cap: int,
        deadline_s: float | None,
        seed: int,
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """See `lengthpred.models.backends.base.Backend`."""
        answers = self._answers(requests, n, temperature, cap, deadline_s, seed)
        shape = (len(requests), n)
        lengths = np.array([[len(a.tokens) for a in row] for row in answers], np.int64)
        ended = np.array([[a.ended for a in row] for row in answers], bool)
        return lengths.reshape(shape), ~ended.reshape(shape)

    def generate_texts(
        self,
        requests: Sequence[Request],
        n: int,
        temperature: float,
        cap: int,
        deadline_s: float | None,
        seed: int,
    ) -> list[list[str]]:
        """See `lengthpred.models.backends.base.TextBackend`."""
        answers = self._answers(requests, n, temperature, cap, deadline_s, seed)
        with self._held(None) as loaded:
            assert loaded is not None
            decode = loaded.tokenizer.decode
            return [[decode(a.tokens, skip_special_tokens=True) for a in row] for row in answers]

    def read(
        self, requests: Sequence[Request]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """See `lengthpred.models.backends.base.ReadingBackend`; the state is after the norm."""
        with self._held(None) as loaded:
            assert loaded is not None
            import torch

            states = np.full((len(requests), loaded.width), np.nan, np.float32)
            entropies = np.full(len(requests), np.nan, np.float32)
            prompts = {
                row: _tokens(loaded, request, loaded.context)
                for row, request in enumerate(requests)
                if _has_text(request)
            }
            for rows in _batches(prompts, self.source.batch):
                forward = Forward(loaded, [prompts[row] for row in rows], 0)
                forward.read_prompts(None)
                output = forward.feed(forward.prompts[:, -1:], output_hidden_states=True)
                states[rows] = output.hidden_states[-1][:, -1].float().cpu().numpy()
                chances = torch.softmax(output.logits[:, -1].float(), -1)
                entropies[rows] = torch.special.entr(chances).sum(-1).cpu().numpy()
        return states, entropies

    def checksum(self) -> str:
        """See `lengthpred.models.backends.base.Backend`."""
        return checksum_of(locate(self.source))

    def close(self) -> None:
        """Let go of the model and of its memory."""
        with self._lock:
            self._loaded = None

    def _answers(
        self,
        requests: Sequence[Request],
        n: int,
        temperature: float,
        cap: int,
        deadline_s: float | None,
        seed: int,
    ) -> list[list[Answer]]:
        until = None if deadline_s is None else time.monotonic() + deadline_s
        answers = [[Answer() for _ in range(n)] for _ in requests]
        with self._held(until) as loaded:
            if loaded is None or n < 1 or cap < 1:
                return answers
            jobs: dict[int, Job] = {}
            for row, request in enumerate(requests):
                if until is not None and time.monotonic() >= until:
                    break
                if _has_text(request):
                    jobs[row] = _job(loaded, request, n, temperature, cap, seed)
            prompts = {row: job.prompt for row, job in jobs.items()}
            samples = n if temperature else 1
            for rows in _batches(prompts, max(self.source.batch // samples, 1)):
                written = write(loaded, [jobs[row] for row in rows], temperature, until)
                for row, found in zip(rows, written, strict=True):
                    answers[row] = found if temperature else found * n
        return answers

    @contextmanager
    def _held(self, until: float | None) -> Iterator[Loaded | None]:
        """The model, for one thread at a time; None when it was not to be had in time."""
        left = seconds_left(until, time.monotonic())
        if not self._lock.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX)):
            yield None
            return
        try:
            if self._loaded is None:
                self._loaded = load(self.source)
            import torch

            with torch.inference_mode():
                yield self._loaded
        except MemoryError as error:
            raise self._out_of_memory() from error
        except RuntimeError as error:
            # torch.OutOfMemoryError on a GPU; on a CPU torch raises a plain one.
            if "out of memory" in str(error) or "can't allocate memory" in str(error):
                raise self._out_of_memory() from error
            raise
        finally:
            self._lock.release()

    def _out_of_memory(self) -> BackendError:
        return BackendError(
            f"{self.source.model} ran out of memory with a batch of {self.source.batch}: set a "
            "smaller 'batch'"
        )


def _has_text(request: Request) -> bool:
    return bool(request.prompt.strip())


def _job(loaded: Loaded, request: Request, n: int, temperature: float, cap: int, seed: int) -> Job:
    limit = None if loaded.context is None else max(loaded.context - cap, loaded.context // 2, 1)
    prompt = _tokens(loaded, request, limit)
    budget = cap if loaded.context is None else min(cap, loaded.context - len(prompt))
    if temperature == 0:
        return Job(prompt, budget)
    key = hashlib.sha256(np.array(prompt, "<u4").tobytes()).digest()
    return Job(prompt, budget, uniforms(key, n, budget, seed))


def _tokens(loaded: Loaded, request: Request, limit: int | None) -> list[int]:
    """The prompt as the model sees it: at least one token, at most `limit`, head and tail."""
    text, is_chat = _text(loaded.tokenizer, request)
    # A lone surrogate is valid JSON, and no valid UTF-8.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if limit is not None:
        text = _head_and_tail(text, CHARACTERS * limit)
    # A template writes its own special tokens.
    found = loaded.tokenizer(text, add_special_tokens=not is_chat, verbose=False)
    ids: list[int] = _head_and_tail(found["input_ids"] or [0], limit)
    return ids


def _text(tokenizer: Any, request: Request) -> tuple[str, bool]:
    """What the model goes on from, and whether the model's template wrote it."""
    if not tokenizer.chat_template:
        return "\n".join(part for part in (request.context, request.prompt) if part), False
    from jinja2 import TemplateError

    messages = messages_of(request)
    try:
        return _templated(tokenizer, messages), True
    except TemplateError:
        # Some templates refuse what others want, a system message above all.
        joined = "\n\n".join(message["content"] for message in messages)
    try:
        return _templated(tokenizer, [{"role": "user", "content": joined}]), True
    except TemplateError as error:
        raise BackendError(f"the model's chat template cannot be used: {error}") from error


def _templated(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


def _head_and_tail(whole: Any, limit: int | None) -> Any:
    if limit is None or len(whole) <= limit:
        return whole
    head = limit // 2
    return whole[:head] + whole[len(whole) - (limit - head) :]


def _batches(prompts: dict[int, list[int]], size: int) -> Iterator[list[int]]:
    """Row numbers, short prompts first: little padding, and most answers before a deadline."""
    order = sorted(prompts, key=lambda row: len(prompts[row]))
    for begin in range(0, len(order), max(size, 1)):
        yield order[begin : begin + size]
