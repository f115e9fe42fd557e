"""Numbers as a reader wants them."""

from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["Estimated", "change", "duration", "interval", "listed", "number", "percent"]

MINUS = "\N{MINUS SIGN}"


class Estimated(Protocol):
    """A result of any kind, with its interval if it has one."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def percent(share: float, digits: int = 0) -> str:
    """
    >>> percent(0.7566)
    '76 %'
    """
    return f"{100 * share:.{digits}f} %"


def change(ratio: float) -> str:
    """A ratio as a change of the whole; small ones with a decimal.

    >>> change(1.059), change(0.9877), change(0.9999)
    ('+6 %', '\N{MINUS SIGN}1.2 %', '0 %')
    """
    points = 100 * (ratio - 1)
    digits = 0 if abs(points) >= 3 else 1
    shown = f"{abs(points):.{digits}f}"
    if float(shown) == 0:
        return "0 %"
    return f"{MINUS if points < 0 else '+'}{shown} %"


def interval(result: Estimated, shown: Callable[[float], str]) -> str:
    """The interval in brackets, with the unit once; nothing where there is none."""
    if result.low is None or result.high is None:
        return ""
    low, high = shown(result.low), shown(result.high)
    return f" ({low.removesuffix(' %')} to {high})"


def duration(seconds: float) -> str:
    """
    >>> duration(0.0003257), duration(4.2), duration(0.000018)
    ('0.33 ms', '4.2 s', '18 µs')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.1 * size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds * 1e6)} µs"


def number(value: float) -> str:
    """Two or three digits that count.

    >>> number(0.3257), number(4.21), number(110.6), number(51234.0)
    ('0.33', '4.2', '111', '51,234')
    """
    size = abs(value)
    if size >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 1 else f"{value:.2f}"


def listed(parts: Sequence[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
