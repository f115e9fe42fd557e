"""What a predictor on the hub is called."""

import os
import re
from dataclasses import dataclass

__all__ = ["COMMIT", "HubName", "hub_name", "parse_hub_name"]

COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = r"\w(?:[\w.-]*\w)?"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@(\w[\w./-]*))?", re.ASCII)


@dataclass(frozen=True)
class HubName:
    """A repository, and a branch, tag or commit of it; "" is the hub's own default."""

    repo: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


def parse_hub_name(name: str) -> HubName | None:
    """The parts of `org/name` or `org/name@revision`; None for any other form.

    >>> parse_hub_name("org/name@v1")
    HubName(repo='org/name', revision='v1')
    >>> parse_hub_name("./name")
    """
    match = _NAME.fullmatch(name)
    if match is None or ".." in name:
        return None
    # The hub has no others.
    if "--" in match[1] or match[1].endswith(".git") or len(match[1]) > 96:
        return None
    return HubName(match[1], match[2] or "")


def hub_name(name: object) -> HubName | None:
    """What of the hub a user means by `name`; None where a folder is meant.

    Only a text can mean the hub, and what is there is a folder. Where `org` is a folder, `org/name`
    is a path with a typo in it; `org/name@main` is none.
    """
    if not isinstance(name, str) or os.path.lexists(name):
        return None
    parsed = parse_hub_name(name)
    if parsed is None or (not parsed.revision and os.path.isdir(name.split("/")[0])):
        return None
    return parsed
