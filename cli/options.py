"""Options that were given, and those among them that would have no effect."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from lengthpred.errors import SettingsError

if TYPE_CHECKING:
    from typer import Context

__all__ = ["is_given", "refuse_unused"]


def is_given(context: "Context", name: str) -> bool:
    """Whether the parameter stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_unused(context: "Context", names: Collection[str], why: str) -> None:
    """Raise SettingsError for a parameter among `names` that was given."""
    for name in context.params:
        if name in names and is_given(context, name):
            option = {"more": "a name"}.get(name, f"--{name.replace('_', '-')}")
            raise SettingsError(f"{option} has no effect here, {why}: leave it out")
