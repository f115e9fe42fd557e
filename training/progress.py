"""How a trainer says how far it is."""

from collections.abc import Callable

__all__ = ["OnProgress", "silent"]

OnProgress = Callable[[str, int, int], None]
"""Called with a step's name, what is done, and the total (0 when it is not known)."""


def silent(step: str, done: int, total: int) -> None:
    """Tell nobody."""
