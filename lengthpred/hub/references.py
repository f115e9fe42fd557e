"""What an artifact refers to outside itself: the language models that parts of it ask.

Such a part keeps a `source` in its config.json (see `lengthpred.models.backends.base.Source`).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lengthpred.errors import ArtifactError
from lengthpred.manifest import Manifest, parse_json

__all__ = ["References", "references"]

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass(frozen=True)
class References:
    """What whoever loads an artifact needs besides it.

    models   hub ids of language models that must be on that machine, with their revision
    servers  base URLs, each with the name of the model that is asked there
    """

    models: tuple[tuple[str, str], ...] = ()
    servers: tuple[tuple[str, str], ...] = ()


def references(folder: Path, manifest: Manifest) -> References:
    """What a checked artifact refers to.

    Raises ArtifactError for what is on this machine only or must not be shown: a table of samples,
    a model's folder, a URL with a key in it.
    """
    models: list[tuple[str, str]] = []
    servers: list[tuple[str, str]] = []
    for name in manifest.files:
        if name.split("/")[-1] != "config.json":
            continue
        source = parse_json((folder / name).read_bytes()).get("source")
        if not isinstance(source, Mapping):
            continue
        _check_local(folder, source)
        urls = source.get("url") or ()
        for url in urls:
            _check_secret(folder, url)
            servers.append((url, source.get("model", "")))
        if not urls and source.get("model"):
            models.append((source["model"], source.get("revision", "")))
    return References(tuple(dict.fromkeys(models)), tuple(dict.fromkeys(servers)))


def _check_local(folder: Path, source: Mapping[str, Any]) -> None:
    if source.get("samples"):
        raise ArtifactError(
            f"{folder} reads recorded samples from {source['samples']}, which is on this machine "
            "only: train it with a model that others can ask (backend 'transformers' or 'openai')"
        )
    model = source.get("model", "")
    here = os.path.exists(model) or model.endswith(".gguf") or not HUB_ID.fullmatch(model)
    if source.get("backend") == "transformers" and here:
        raise ArtifactError(
            f"{folder} asks the model at {model}, which is on this machine only: train it with a "
            "hub id in place of that path"
        )


def _check_secret(folder: Path, url: str) -> None:
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        # Not the URL itself: terminals are logged.
        raise ArtifactError(
            f"{folder} names a server at {parts.hostname or 'a URL'} with more than a path in its "
            "URL, which may be a key: train it without, and give the key in LENGTHPRED_API_KEY"
        )
