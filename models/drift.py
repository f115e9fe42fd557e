"""An alarm when true lengths stop being what was predicted: when to retrain, and on which traffic.

Source: Page, "Continuous inspection schemes" (1954), and Hinkley, "Inference about the
change-point from cumulative sum tests" (1971).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray, Request
from lengthpred.distribution import LengthDistribution
from lengthpred.models.recalibration import levels_of
from lengthpred.models.request_class import path_of

__all__ = ["ALL_TRAFFIC", "Alarm", "Direction", "DriftMonitor", "DriftSettings", "domains_of"]

ALL_TRAFFIC = "all traffic"
Direction = Literal["longer", "shorter", "wider"]
DIRECTIONS: tuple[Direction, ...] = ("longer", "shorter", "wider")


@dataclass(frozen=True)
class DriftSettings:
    """Of the tests. A score is 0 on average while predictions are right, and lies in [-1, 1].

    tolerance  how far a domain's mean score may move without an alarm
    threshold  sum of what lies beyond the tolerance at which the alarm is raised
    least      observations of a domain before its first alarm, and after an alarm those that tell
               what is now usual, untested
    reference  observations that a mean score of 0 counts for in a domain's usual one: more finds
               sooner what was never right
    most_keys  domains that are kept; the one not seen for longest gives way
    """

    tolerance: float = 0.1
    threshold: float = 25.0
    least: int = 50
    reference: float = 500.0
    most_keys: int = 1_000

    def __post_init__(self) -> None:
        if not (0 <= self.tolerance < 1 and self.threshold > 0 and self.reference > 0):
            raise ValueError("tolerance lies in [0, 1); threshold and reference are above 0")
        if self.least < 1 or self.most_keys < 1:
            raise ValueError("least and most_keys are 1 or more")


@dataclass(frozen=True)
class Alarm:
    """What drifted, and how.

    key        the domain: a name that the monitor's `domains` gave, or ALL_TRAFFIC
    direction  "longer" or "shorter" than predicted, or "wider": further from the predicted middle
    at         how many requests the monitor had observed, this one included
    since      how many of them, of this domain, came since the change
    percentile since then: where truths lay within what was predicted, on average (50 when right);
               of "wider", how far from the middle (25 when right)
    """

    key: str
    direction: Direction
    at: int
    since: int
    percentile: float

    def __str__(self) -> str:
        place, usual = f"at percentile {self.percentile:.0f} of", 50
        drifted = f"run {self.direction}"
        if self.direction == "wider":
            drifted = "scatter more"
            place, usual = f"{self.percentile:.0f} percentiles from the middle of", 25
        return (
            f"{self.key}: lengths {drifted} than predicted; over the last {self.since:,} of its "
            f"requests they lay on average {place} what was predicted, {usual} when that is right: "
            "retrain with recent rows of it"
        )


def domains_of(request: Request) -> list[str]:
    """The domains of a request: its target model, its tenant, and its class, by name."""
    names = [f"{what} {name}" for what, name in (("model", request.model),) if name]
    if request.tenant:
        names.append(f"tenant {request.tenant}")
    _, *parts = path_of(request)
    if parts:
        size, script, task = parts
        names.append(f"prompts of task '{task}', {script}, {size}")
    return names


@dataclass
class _Total:
    """Sums of both scores over so many observations."""

    weight: float = 0.0
    side: float = 0.0
    spread: float = 0.0

    def add(self, side: float, spread: float) -> None:
        self.weight += 1
        self.side += side
        self.spread += spread


@dataclass
class _Track:
    """One domain's tests: its usual scores, sums of what lay beyond the tolerance, the scores since
    each of these was 0, and how many observations to come only tell what is usual."""

    usual: _Total
    seen: int = 0
    beyond: list[float] = field(default_factory=lambda: [0.0] * 3)
    since: list[_Total] = field(default_factory=lambda: [_Total(), _Total(), _Total()])
    untested: int = 0

    def step(self, side: float, spread: float, settings: DriftSettings) -> int | None:
        """Count one observation; the number of the direction that drifted, if any has."""
        if self.untested:
            self.untested -= 1
            self.seen += 1
            self.usual.add(side, spread)
            return None
        side_moved = side - self.usual.side / self.usual.weight
        spread_moved = spread - self.usual.spread / self.usual.weight
        for i, moved in enumerate((side_moved, -side_moved, spread_moved)):
            self.beyond[i] += moved - settings.tolerance
            self.since[i].add(side, spread)
            if self.beyond[i] <= 0:
                self.beyond[i], self.since[i] = 0.0, _Total()
        self.seen += 1
        self.usual.add(side, spread)
        if self.seen < settings.least or max(self.beyond) < settings.threshold:
            return None
        # What runs longer or shorter lies further from the middle, too: that is the lesser news.
        longer, shorter, wider = self.beyond
        return int(np.argmax([longer, shorter, wider / 2]))

    def restart(self, direction: int, untested: int) -> _Total:
        """Begin anew; returns what came since the change.

        Usual is what the next `untested` observations will say. Those that raised the alarm were
        chosen by it: they lie further out than what follows, which would be told as one more drift.
        """
        since = self.since[direction]
        self.usual, self.untested = _Total(), untested
        self.beyond, self.since = [0.0] * 3, [_Total(), _Total(), _Total()]
        return since


class DriftMonitor:
    """Page-Hinkley tests on the level at which a truth fell in what was predicted for it (PIT).

    settings  see DriftSettings
    domains   the names of a request's domains; ALL_TRAFFIC is always one more

    While predictions are right the PIT is uniform for easy and for hard requests alike, so that
    another mix of the same traffic raises no alarm, as it would for an absolute error or a
    log-score. Two scores, both 0 on average then: 2 PIT - 1, tested two-sided (answers that
    became shorter want retraining as much as longer ones, and the user should know which), and
    4 |PIT - 1/2| - 1, tested for the worse only (intervals that are too wide do no harm to an
    order). What is known of an atom or of an answer that was stopped is the mean over its levels.

    Give it the predictor's own answers, not corrected ones: a correction hides the drift.
    Thread-safe.
    """

    def __init__(
        self,
        settings: DriftSettings | None = None,
        domains: Callable[[Request], Iterable[str]] = domains_of,
    ) -> None:
        self.settings = settings or DriftSettings()
        self._domains = domains
        self._all = self._new_track()
        self._tracks: OrderedDict[str, _Track] = OrderedDict()
        self._lock = threading.Lock()

    def observe(
        self,
        requests: Sequence[Request],
        predicted: LengthDistribution,
        lengths: IntArray,
        censored: npt.NDArray[np.bool_],
    ) -> list[Alarm]:
        """The alarms that true lengths, (n,), in tokens, raise, in the order of the requests.

        Where `censored`, the answer was stopped. After an alarm a domain's tests begin anew from
        where its next observations are: one drift is told once. Raises ValueError for shapes that
        do not fit.
        """
        tokens, stopped = np.asarray(lengths, np.int64), np.asarray(censored, bool)
        n = len(requests)
        if len(predicted) != n or tokens.shape != (n,) or stopped.shape != (n,):
            raise ValueError("each request needs one distribution, one length and one flag")
        alarms: list[Alarm] = []
        sides, spreads = (scores.tolist() for scores in pit_scores(predicted, tokens, stopped))
        with self._lock:
            for request, side, spread in zip(requests, sides, spreads, strict=True):
                alarms += self._count(ALL_TRAFFIC, self._all, side, spread)
                for name in dict.fromkeys(self._domains(request)):
                    track = self._track(name)
                    found = self._count(name, track, side, spread)
                    # What all traffic is of says nothing that its own alarm did not say.
                    alarms += found if track.seen < self._all.seen else []
        return alarms

    def _count(self, key: str, track: _Track, side: float, spread: float) -> list[Alarm]:
        found = track.step(side, spread, self.settings)
        if found is None:
            return []
        since, direction = track.restart(found, self.settings.least), DIRECTIONS[found]
        percentile = 50 * (1 + since.side / since.weight)
        if direction == "wider":
            percentile = 25 * (1 + since.spread / since.weight)
        return [Alarm(key, direction, self._all.seen, int(since.weight), percentile)]

    def _new_track(self) -> _Track:
        return _Track(usual=_Total(weight=self.settings.reference))

    def _track(self, name: str) -> _Track:
        track = self._tracks.get(name)
        if track is None:
            track = self._tracks[name] = self._new_track()
        self._tracks.move_to_end(name)
        if len(self._tracks) > self.settings.most_keys:
            self._tracks.popitem(last=False)
        return track


def pit_scores(
    dist: LengthDistribution, lengths: IntArray, censored: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """2 PIT - 1 and 4 |PIT - 1/2| - 1, (n,) each, on average over the levels of each truth."""
    low, high = (2 * level - 1 for level in levels_of(dist, lengths, censored))
    width = high - low
    area = (high * np.abs(high) - low * np.abs(low)) / 2
    far = np.where(width > 1e-9, area / np.maximum(width, 1e-9), np.abs(low))
    return (low + high) / 2, 2 * far - 1
