"""ShareGPT: an array of {"id", "conversations": [{"from", "value"}]}.

One row a human turn that is answered. `turn` counts the human turns of a record from 0; parts of
one conversation (`id_0`, `id_1`, …) share a group. A record that begins with the assistant, the
later part of a long conversation, keeps that reply in its context.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lengthpred.data.readers.base import Draft, Row, Source, open_bytes
from lengthpred.data.readers.json_stream import json_records
from lengthpred.data.report import ImportReport
from lengthpred.openai_body import clean, extend_context

__all__ = ["read"]

ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "assistant"), "assistant"),
}

FENCE = "```"


def read(source: Source, report: ImportReport) -> Iterator[Draft]:
    """One draft a record. Raises DataError when the file is no JSON."""
    for where, record in json_records(source, open_bytes(source), report):
        turns = _turns(record, where, report)
        if turns:
            name = record.get("id")
            name = clean(str(name)) if name is not None else where.replace(" ", "-")
            conversation = _Conversation(name, turns, source, report, where)
            yield Draft([text for _, text in turns], conversation.rows, where)


def _turns(record: Any, where: str, report: ImportReport) -> list[tuple[str, str]]:
    """The turns as (role, text); none when the record cannot be used, which is reported."""
    if not isinstance(record, dict):
        report.drop("not an object", where)
        return []
    messages = record.get("conversations", record.get("conversation"))
    if not isinstance(messages, list):
        report.drop("no list 'conversations'", where)
        return []
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            report.drop("a turn is not an object", where)
            return []
        role, text = message.get("from"), message.get("value")
        if not isinstance(role, str) or not isinstance(text, str):
            report.drop("a turn without text in 'from' and 'value'", where)
            return []
        turns.append((ROLES.get(role.lower(), clean(role)), clean(text)))
    if not turns:
        report.drop("empty conversation", where)
    return turns


@dataclass(slots=True)
class _Conversation:
    name: str
    turns: list[tuple[str, str]]
    source: Source
    report: ImportReport
    where: str

    def rows(self, counts: Sequence[int]) -> list[Row]:
        """The rows; counts are the lengths of all turns, in tokens."""
        rows: list[Row] = []
        context, replies, before, turn = "", list[int](), 0, -1
        # The one topic that can be told without a model, and that answers differently.
        domain = "programming" if any(FENCE in text for _, text in self.turns) else "text"
        for i, (role, text) in enumerate(self.turns):
            if role == "user":
                turn += 1
                fault = self._fault(i)
                if fault:
                    self.report.drop(fault, f"{self.where} turn {turn}")
                else:
                    rows.append(
                        {
                            "id": f"{self.name}#{turn}",
                            "group": self._group(),
                            "prompt": text,
                            "context": context,
                            "turn": turn,
                            "reply_tokens": list(replies),
                            "prompt_tokens": before + counts[i],
                            "output_tokens": [counts[i + 1]],
                            "model": self.source.model,
                            "domain": domain,
                        }
                    )
            elif role == "assistant" and text:
                replies.append(counts[i])
                # A record that begins with a reply is a later part of a conversation.
                turn = max(turn, 0)
            context = extend_context(context, role, text, self.source.context_chars)
            before += counts[i]
        if all(role != "user" for role, _ in self.turns):
            self.report.drop("no human turn", self.where)
        return rows

    def _fault(self, i: int) -> str:
        """Why human turn `i` makes no row; "" when it does."""
        if i + 1 == len(self.turns) or self.turns[i + 1][0] != "assistant":
            return "no answer"
        if not self.turns[i][1].strip():
            return "empty prompt"
        return "" if self.turns[i + 1][1].strip() else "empty answer"

    def _group(self) -> str:
        stem, _, part = self.name.rpartition("_")
        return stem if stem and part.isdigit() else self.name
