"""From predicted lengths to the order in which a server runs requests.

`cost` says how much service a request still needs, `priority` makes of it, and of the time of
arrival, one whole number: the smallest runs first. Server adapters and replay call the same two.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray, Predictor, Request
from lengthpred.distribution import NO_CEILING, LengthDistribution
from lengthpred.errors import SettingsError, did_you_mean

__all__ = [
    "POLICIES",
    "PREDICTING",
    "PREEMPTIVE",
    "OrderingSettings",
    "cost",
    "prioritize",
    "priority",
    "prompt_tokens",
]

EPOCH_S = 1_735_689_600  # 2025-01-01: keeps keys small
SCALE = 16  # keys to a token
MOST = 2**62  # keys stay within it, on either side, whatever the clock says
LONGEST_FIRST_QUANTILE = 0.9
CHARS_PER_TOKEN = 4
ENTRY_WEIGHT = 0.25  # what a token of a prompt counts in the level where a request enters mlfq


@dataclass(frozen=True)
class OrderingSettings:
    """What bears on the order besides the lengths.

    max_overtake_s    starvation bound: a request can be overtaken only by those that arrive within
                      so many seconds after it; infinite for none
    cap               tokens: no request costs more
    prefill_weight    cost of a prompt token, in output tokens
    quantile          sjf and longest-first go by this quantile of the length; None for their own,
                      which is the mean for sjf and the 0.9 quantile for longest-first
    preemption_ratio  srpt: a request that has written this share of its predicted length is not
                      preempted any more (TRAIL's limit, Shahout et al., 2024)
    slo_classes_s     slo: upper ends of the classes of objectives, in seconds; what has a longer
                      one or none is the last class
    quantum           mlfq: tokens of the first level, each further one doubles
    seed              random

    Raises SettingsError for values out of range.
    """

    max_overtake_s: float = 1800.0
    cap: float = 4096.0
    prefill_weight: float = 0.0
    quantile: float | None = None
    preemption_ratio: float = 0.8
    slo_classes_s: tuple[float, ...] = (2.0, 10.0, 60.0)
    quantum: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.max_overtake_s > 0:
            raise SettingsError(f"max_overtake_s must be above 0, not {self.max_overtake_s:g}")
        if not 1 <= self.cap <= 2**31:
            raise SettingsError(f"cap must be 1 to 2**31 tokens, not {self.cap:g}")
        if not (isfinite(self.prefill_weight) and self.prefill_weight >= 0):
            raise SettingsError(f"prefill_weight must be 0 or more, not {self.prefill_weight:g}")
        for name in ("quantile", "preemption_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SettingsError(f"{name} must lie between 0 and 1, not {value:g}")
        if self.quantile in (0, 1):
            raise SettingsError("the quantile must lie between 0 and 1: all costs would be alike")
        if self.quantum < 1:
            raise SettingsError(f"the quantum must be 1 token or more, not {self.quantum}")
        if list(self.slo_classes_s) != sorted(set(self.slo_classes_s)):
            raise SettingsError(f"slo_classes_s must rise, not {self.slo_classes_s}")

    @property
    def aging(self) -> float:
        """Tokens of cost that a second of waiting is worth."""
        return min(self.cap / self.max_overtake_s, float(MOST))


DEFAULTS = OrderingSettings()
WHOLE = OrderingSettings(cap=2.0**31)  # of a batch that is there as a whole


@dataclass(frozen=True)
class _Asked:
    """What a policy sees of n requests."""

    dist: LengthDistribution | None
    requests: Sequence[Request]
    generated: IntArray
    settings: OrderingSettings

    @property
    def prefill(self) -> FloatArray:
        return self.settings.prefill_weight * prompt_tokens(self.requests)

    @property
    def answers(self) -> FloatArray:
        """How many answers each request asks for."""
        return np.array([_whole(r.sampling.get("n"), 1) for r in self.requests], np.float64)

    @property
    def objective(self) -> FloatArray:
        """Seconds; infinite where a request has none."""
        given = np.array([r.slo_s for r in self.requests], np.float64)  # None becomes NaN
        return np.where(np.isnan(given), inf, given)

    @property
    def forced(self) -> FloatArray:
        """Tokens that the client has each answer run to, whatever the model would write."""
        least = np.zeros(len(self.requests))
        for row, request in enumerate(self.requests):
            if "min_tokens" in request.sampling:
                least[row] = _whole(request.sampling["min_tokens"], 0)
            if request.sampling.get("ignore_eos") is True:
                least[row] = self.settings.cap if request.max_tokens is None else request.max_tokens
        return least

    def total(self) -> LengthDistribution:
        """The length of each answer between what the client forces and its limit, given what is
        written."""
        if self.dist is None:
            raise SettingsError("this policy orders by predicted length: give it a predictor")
        known = self.dist
        # What is still at work writes one more at least.
        least = np.maximum(np.where(self.generated > 0, self.generated + 1, 0), self.forced)
        if least.any():
            known = known.given(least)
        if all(r.max_tokens is None for r in self.requests):
            return known
        most = [NO_CEILING if r.max_tokens is None else r.max_tokens for r in self.requests]
        return known.clip(np.minimum(np.array(most, np.float64), NO_CEILING))

    def remaining(self, quantile: float | None) -> FloatArray:
        """The service still needed, by the mean or a quantile of the length."""
        total = self.total()
        length = total.mean() if quantile is None else total.quantile(quantile)
        return np.maximum(length - self.generated, 0) * self.answers + self.prefill


def cost(
    policy: str,
    dist: LengthDistribution | None,
    requests: Sequence[Request],
    generated: npt.ArrayLike | None = None,
    settings: OrderingSettings = DEFAULTS,
) -> FloatArray:
    """The cost of n requests under a policy of POLICIES, float64 (n,), in tokens, in [0, cap].

    `dist` (n,) are their predicted natural lengths; policies outside PREDICTING need none. What a
    client makes of them counts: `max_tokens`, and of `sampling` n, min_tokens and ignore_eos.
    `generated` (n,) is how many tokens each has written already, 0 where it waits for its first.

    For latency: fcfs; random; prompt-sjf; sjf (expected service, or a quantile of it); srpt
    (expected remaining service); gittins (the best ratio of expected service to the chance of
    finishing; Gittins and Jones, 1974); mlfq (attained service in doubling levels, entered by
    prompt: skip-join, FastServe, Wu et al., 2023); slo (classes of objectives, sjf inside: QLM,
    Patke et al., 2024); edf (earliest deadline first). For the throughput of a fixed batch:
    longest-first, and its control longest-prompt-first.

    Raises SettingsError for an unknown policy, or one that needs `dist` and has none.
    """
    if policy not in POLICIES:
        raise SettingsError(f"'{policy}' is no policy. {did_you_mean(policy, POLICIES)}")
    if dist is not None and len(dist) != len(requests):
        raise SettingsError(f"{len(dist)} distributions were given for {len(requests)} requests")
    written = np.zeros(len(requests), np.int64) if generated is None else np.asarray(generated)
    found = POLICIES[policy](_Asked(dist, requests, written.astype(np.int64), settings))
    return np.clip(found, 0.0, settings.cap)


def priority(
    cost: npt.ArrayLike, arrival_unix_s: npt.ArrayLike, settings: OrderingSettings = DEFAULTS
) -> IntArray:
    """The keys of n requests, int64 (n,): the smallest runs first.

    Waiting lowers all waiting keys alike (linear aging), so that keys never need to be computed
    again, and a later request overtakes only where it arrives within `max_overtake_s`. `cost` (n,)
    is that of `cost`, `arrival_unix_s` (n,) the time of arrival in seconds since 1970.
    """
    arrived = np.clip(np.asarray(arrival_unix_s, np.float64) - EPOCH_S, -MOST, MOST)
    exact = SCALE * (np.asarray(cost, np.float64) + settings.aging * arrived)
    return np.rint(np.clip(exact, -MOST, MOST)).astype(np.int64)


def prioritize(
    requests: Sequence[Request | str],
    predictor: Predictor,
    policy: str = "sjf",
    settings: OrderingSettings = WHOLE,
) -> list[int]:
    """Priorities of a batch that is there as a whole, for `vllm.LLM.generate(priority=...)`.

    A string is a prompt. `longest-first` raises the tokens a second of a fixed batch, `sjf` lowers
    its mean latency. Nothing has to be bounded against those that come later, so by default no
    length is too long to be told from another. Raises SettingsError for an unknown policy, or one
    string in place of several.
    """
    if isinstance(requests, str):
        raise SettingsError("prioritize orders several prompts: give a list of them")
    asked = [r if isinstance(r, Request) else Request(prompt=r) for r in requests]
    costs = cost(policy, predictor.predict(asked), asked, None, settings)
    keys: list[int] = priority(costs, np.full(len(asked), EPOCH_S), settings).tolist()
    return keys


def prompt_tokens(requests: Sequence[Request]) -> FloatArray:
    """Length of each whole input, float64 (n,); by its characters where it was not counted."""
    counted = [
        (len(r.prompt) + len(r.context)) / CHARS_PER_TOKEN
        if r.prompt_tokens is None
        else r.prompt_tokens
        for r in requests
    ]
    return np.array(counted, np.float64)


# Policies


def _fcfs(asked: _Asked) -> FloatArray:
    return np.zeros(len(asked.requests))


def _random(asked: _Asked) -> FloatArray:
    """Drawn from what the request is, so that asking again does not change its place."""
    said = (f"{asked.settings.seed} {r.id} {r.prompt}" for r in asked.requests)
    drawn = [zlib.crc32(text.encode("utf-8", "replace")) for text in said]
    return np.array(drawn, np.float64) / 2**32 * asked.settings.cap


def _prompt_sjf(asked: _Asked) -> FloatArray:
    """At the weight that prompts have beside answers, so that aging bites as much as under sjf."""
    return asked.prefill if asked.settings.prefill_weight else prompt_tokens(asked.requests)


def _longest_prompt_first(asked: _Asked) -> FloatArray:
    return asked.settings.cap - np.minimum(_prompt_sjf(asked), asked.settings.cap)


def _sjf(asked: _Asked) -> FloatArray:
    return asked.remaining(asked.settings.quantile)


def _longest_first(asked: _Asked) -> FloatArray:
    quantile = asked.settings.quantile
    long = asked.remaining(LONGEST_FIRST_QUANTILE if quantile is None else quantile)
    return asked.settings.cap - np.minimum(long, asked.settings.cap)


def _srpt(asked: _Asked) -> FloatArray:
    left = asked.remaining(None)
    predicted = asked.generated + left
    kept = asked.generated > asked.settings.preemption_ratio * predicted
    service: FloatArray = np.where(kept, 0.0, left)
    return service


def _gittins(asked: _Asked) -> FloatArray:
    total = asked.total()
    low, high = total._bounds()
    mass = total._weights()
    mass /= mass.sum(axis=1, keepdims=True)  # what rounding lacks would weigh with the whole tail
    written = asked.generated[:, None]
    until = np.maximum(high - written, 1)  # stop at the end of each bin
    within = np.maximum((low + high) / 2 - written, 0.5)
    done = np.cumsum(mass, axis=1)
    spent = np.cumsum(mass * within, axis=1) + (1 - done) * until
    with np.errstate(divide="ignore"):
        index = np.where(done > 0, spent / done, inf).min(axis=1)
    needed: FloatArray = index * asked.answers + asked.prefill
    return needed


def _mlfq(asked: _Asked) -> FloatArray:
    attained = asked.generated + ENTRY_WEIGHT * prompt_tokens(asked.requests)
    level = np.ceil(np.log2(np.maximum(attained + 1, 1) / asked.settings.quantum))
    reached: FloatArray = asked.settings.quantum * 2.0 ** np.maximum(level, 0)
    return reached


def _slo(asked: _Asked) -> FloatArray:
    ends = np.array(asked.settings.slo_classes_s)
    inside = np.clip(_sjf(asked), 0, asked.settings.cap)
    return (np.searchsorted(ends, asked.objective) * asked.settings.cap + inside) / (len(ends) + 1)


def _edf(asked: _Asked) -> FloatArray:
    if not isfinite(asked.settings.max_overtake_s):
        raise SettingsError("edf needs a max_overtake_s: an objective beyond it waits like none")
    return asked.settings.aging * np.minimum(asked.objective, asked.settings.max_overtake_s)


def _whole(value: object, default: int) -> int:
    return min(value, MOST) if isinstance(value, int) and value > 0 else default


POLICIES: dict[str, Callable[[_Asked], FloatArray]] = {
    "fcfs": _fcfs,
    "random": _random,
    "prompt-sjf": _prompt_sjf,
    "sjf": _sjf,
    "srpt": _srpt,
    "gittins": _gittins,
    "mlfq": _mlfq,
    "slo": _slo,
    "edf": _edf,
    "longest-first": _longest_first,
    "longest-prompt-first": _longest_prompt_first,
}
PREDICTING = ("sjf", "srpt", "gittins", "slo", "longest-first")
PREEMPTIVE = ("srpt", "mlfq")
