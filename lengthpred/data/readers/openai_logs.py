"""OpenAI logs: a request and its response a line (chat, completions, responses, batch API).

The request is the line's `body` or `request` (which may hold a `body`), or the line itself; the
response is its `response` (which may hold a `body`), or the line itself. The output files of the
batch API hold no requests: give their input file as `Source.requests`, joined by `custom_id`.

The group of a row is the line's `group`; where it has none, turns that go on from a line before are
of its conversation.
"""

import datetime as dt
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthpred.base import Request
from lengthpred.data.conversations import Conversations
from lengthpred.data.readers.base import Draft, Row, Source, length_fault, open_bytes
from lengthpred.data.readers.json_stream import json_records
from lengthpred.data.report import ImportReport
from lengthpred.errors import DataError
from lengthpred.openai_body import clean, replies_in, request_from_body

__all__ = ["read"]

STOPPED = {"length", "max_tokens", "max_output_tokens", "model_length", "abort"}
TIMES = ("arrival_s", "created", "created_at", "timestamp", "time")


def read(source: Source, report: ImportReport) -> Iterator[Draft]:
    """One draft a line. Raises DataError when the file is no JSON."""
    path = open_bytes(source)
    with ExitStack() as stack:
        requests = None
        if source.requests:
            requests = stack.enter_context(closing(_Requests(Path(source.requests))))
        conversations = Conversations()
        for where, line in json_records(source, path, report):
            try:
                yield _draft(line, where, source, requests, conversations)
            except _Unusable as fault:
                report.drop(str(fault), where)
            except DataError as error:
                report.drop(f"bad request: {error}", where)


class _Unusable(Exception):
    """Why a line makes no row."""


def _draft(
    line: Any,
    where: str,
    source: Source,
    requests: "_Requests | None",
    conversations: Conversations,
) -> Draft:
    if not isinstance(line, Mapping):
        raise _Unusable("not an object")
    body = _inner(line, "body", "request")
    if body is None and requests is not None:
        body = requests.find(str(line.get("custom_id")))
    elif body is None:
        body = line
    if not isinstance(body, Mapping) or not {"messages", "prompt", "input"} & set(body):
        raise _Unusable("no request in the line")
    answer = _inner(line, "response") or line
    error = answer.get("error") or line.get("error")
    if error or not 200 <= _status(line) < 300:
        raise _Unusable("the request failed")
    replies = replies_in(body)
    request = request_from_body(body, count=lambda texts: ())
    if not request.prompt.strip() and not request.prompt_tokens:
        raise _Unusable("empty prompt")
    samples = _samples(answer)
    usage = answer.get("usage")
    stated = usage if isinstance(usage, Mapping) else {}
    group = _name(line.get("group")) or conversations.group(request.prompt, request.context)
    found = _Line(line, answer, stated, request, samples, len(replies), source, where, group)
    return Draft([*replies, *found.to_count()], found.rows, where)


def _inner(line: Mapping[str, Any], *names: str) -> Any:
    """The object under one of the names, or its `body` when it has one."""
    for name in names:
        value = line.get(name)
        if isinstance(value, Mapping):
            return value["body"] if isinstance(value.get("body"), Mapping) else value
    return None


def _status(line: Mapping[str, Any]) -> int:
    response = line.get("response")
    status = response.get("status_code") if isinstance(response, Mapping) else None
    return status if isinstance(status, int) else 200


@dataclass(frozen=True, slots=True)
class _Sample:
    text: str
    finish: str | None


def _samples(answer: Mapping[str, Any]) -> list[_Sample]:
    """The answers: one for each choice, or the one of a responses call."""
    choices = answer.get("choices")
    if isinstance(choices, list) and choices:
        return [_choice(choice) for choice in choices]
    output = answer.get("output")
    if isinstance(output, list):
        details = answer.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, Mapping) else None
        finish = _name(reason) or ("stop" if answer.get("status") == "completed" else None)
        return [_Sample("".join(_output_text(item) for item in output), finish)]
    if isinstance(output, str):
        return [_Sample(clean(output), None)]
    raise _Unusable("no answer")


def _choice(choice: Any) -> _Sample:
    if not isinstance(choice, Mapping):
        raise _Unusable("wrong type")
    message = choice.get("message")
    parts = [choice.get("text")]
    if isinstance(message, Mapping):
        parts = [
            message.get("reasoning_content") or message.get("reasoning"),
            message.get("content"),
        ]
    text = "".join(clean(part) for part in parts if isinstance(part, str))
    return _Sample(text, _name(choice.get("finish_reason")))


def _name(value: Any) -> str | None:
    """A text that says something; None for anything else."""
    return clean(value) if isinstance(value, str) and value else None


def _output_text(item: Any) -> str:
    content = item.get("content") if isinstance(item, Mapping) else None
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return clean("".join(text for text in texts if isinstance(text, str)))


@dataclass(slots=True)
class _Line:
    line: Mapping[str, Any]
    answer: Mapping[str, Any]
    usage: Mapping[str, Any]
    request: Request
    samples: list[_Sample]
    replies: int
    source: Source
    where: str
    group: str | None

    def stated(self) -> Any:
        """The length that the server states; it is a sum when there are several samples."""
        given = self.usage.get("completion_tokens", self.usage.get("output_tokens"))
        return given if len(self.samples) == 1 else None

    def to_count(self) -> list[str]:
        """The answers whose lengths the server does not state."""
        if (given := self.stated()) is not None:
            fault = length_fault(given)
            if fault:
                raise _Unusable(fault)
            return []
        texts = [sample.text for sample in self.samples]
        if not all(text.strip() for text in texts):
            raise _Unusable("empty answer")
        return texts

    def rows(self, counts: Sequence[int]) -> list[Row]:
        given, request = self.stated(), self.request
        lengths = list(counts[self.replies :]) if given is None else [int(given)]
        inputs = self.usage.get("prompt_tokens", self.usage.get("input_tokens"))
        model = request.model or _name(self.answer.get("model")) or self.source.model
        return [
            {
                "id": self._id(),
                "group": self.group,
                "prompt": request.prompt,
                "context": request.context,
                "turn": self.replies,
                "reply_tokens": list(counts[: self.replies]),
                "prompt_tokens": request.prompt_tokens if length_fault(inputs) else int(inputs),
                "output_tokens": lengths,
                "censored": [sample.finish in STOPPED for sample in self.samples],
                "finish_reason": [sample.finish for sample in self.samples],
                "max_tokens": request.max_tokens,
                "model": model,
                "temperature": request.temperature,
                "tenant": _name(self.line.get("tenant")),
                "arrival_s": self._arrival(),
            }
        ]

    def _id(self) -> str:
        names = (self.line.get("custom_id"), self.answer.get("id"), self.line.get("id"))
        return next(filter(None, map(_name, names)), self.where.replace(" ", "-"))

    def _arrival(self) -> float | None:
        """Seconds since 1970 where the line or the response tells when the request came."""
        for holder in (self.line, self.answer):
            for name in TIMES:
                value = holder.get(name)
                if isinstance(value, str):
                    try:
                        return dt.datetime.fromisoformat(value).timestamp()
                    except (ValueError, OverflowError, OSError):
                        continue
                if isinstance(value, bool) or not isinstance(value, int | float):
                    continue
                if 0 <= value <= sys.float_info.max:
                    return float(value)
        return None


class _Requests:
    """The input file of a batch: request bodies by custom_id. Holds places, not bodies."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"{path} does not exist: give the file of requests of the batch")
        self._file = path.open("rb")
        self._places: dict[str, int] = {}
        place = 0
        for line in self._file:
            entry = _parsed(line)
            if "custom_id" in entry:
                self._places[str(entry["custom_id"])] = place
            place += len(line)
        if not self._places:
            self.close()
            raise DataError(f"{path} has no line with 'custom_id': give the input of the batch")

    def close(self) -> None:
        self._file.close()

    def find(self, name: str) -> Any:
        if name not in self._places:
            raise _Unusable("no request with this custom_id")
        self._file.seek(self._places[name])
        return _inner(_parsed(self._file.readline()), "body", "request")


def _parsed(line: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, Mapping) else {}
