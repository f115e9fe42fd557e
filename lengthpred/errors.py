"""Every error that lengthpred raises on purpose.

    LengthPredError             what a caller may want to catch; the CLI prints it and exits with 2
     ├─ DataError               a file, table or column that cannot be used
     ├─ ArtifactError           a folder that is no artifact, or a damaged or foreign one
     ├─ BackendError            a language model or server that does not answer
     ├─ SettingsError           a recipe, option or argument with a wrong name or value
     └─ MissingExtraError       a package that an optional feature needs is not installed

A message says what was given, what is allowed, and what to do.
"""

import importlib
from collections.abc import Iterable
from types import ModuleType

__all__ = [
    "ArtifactError",
    "BackendError",
    "DataError",
    "LengthPredError",
    "MissingExtraError",
    "SettingsError",
    "did_you_mean",
    "require",
]


class LengthPredError(Exception):
    """The root of all errors that lengthpred raises on purpose."""


class DataError(LengthPredError):
    """A file, table or column that cannot be used."""


class ArtifactError(LengthPredError):
    """A folder that is no artifact, or a damaged, foreign or newer one."""


class BackendError(LengthPredError):
    """A language model that cannot be loaded, or a server that does not answer."""


class SettingsError(LengthPredError):
    """A recipe, option or argument with a wrong name or value."""


class MissingExtraError(LengthPredError):
    """A package that an optional feature needs is not installed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the near choice, or all of them when none is near.

    >>> did_you_mean("histgram", ["boosted", "histogram"])
    "Did you mean 'histogram'?"
    """
    import difflib

    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Choose one of: {', '.join(choices)}."


def require(module: str, extra: str, why: str) -> ModuleType:
    """Import `module`, or say which extra to install.

    Raises MissingExtraError when the module cannot be found.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{why} needs the package '{error.name}': pip install 'lengthpred[{extra}]'"
        ) from error
