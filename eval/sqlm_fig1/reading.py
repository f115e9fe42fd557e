"""The experiment in words: the published figures, ours, and why they differ."""

from collections.abc import Iterator, Mapping, Sequence

from lengthpred.eval.replay.settings import OFFLINE
from lengthpred.eval.sqlm_fig1.setting import (
    PUBLISHED_GAIN,
    PUBLISHED_SLM_S,
    Fig1Result,
    Fig1Settings,
)

__all__ = ["Found", "read_fig1"]

Key = tuple[str, str, int, float, str, str | None, str | None, str]
ENGINES = {"continuous": "continuous batching", "gang": "gang batches", OFFLINE: "vLLM itself"}


class Found:
    """Results by what they are of."""

    def __init__(self, results: Sequence[Fig1Result]) -> None:
        self._found: Mapping[Key, Fig1Result] = {
            (
                *(r.engine, r.arrivals, r.sum_limit, r.ood_ratio),
                *(r.policy, r.predictor, r.slm, r.metric),
            ): r
            for r in results
        }
        self.engines = list(dict.fromkeys(r.engine for r in results))
        self.ratios = sorted({r.ood_ratio for r in results})
        self.limits = list(dict.fromkeys(r.sum_limit for r in results))

    def get(
        self,
        engine: str,
        ratio: float,
        policy: str,
        predictor: str | None,
        metric: str,
        *,
        slm: str | None = None,
        arrivals: str = "burst",
        limit: int | None = None,
    ) -> Fig1Result | None:
        """One measure; at the first sum limit unless another is given."""
        if predictor in ("sqlm", "sqlm-all") and slm is None:
            slm = "apart"
        chosen = self.limits[0] if limit is None else limit
        key = (engine, arrivals, chosen, ratio, policy, predictor, slm, metric)
        return self._found.get(key)


def read_fig1(
    results: Sequence[Fig1Result], settings: Fig1Settings, held_out: Sequence[Sequence[str]]
) -> list[str]:
    """What the results say, a sentence or two each."""
    found = Found(results)
    return [
        *_published(found),
        *_orders(found),
        *_small_model(found, settings),
        *_gate(found),
        *_differences(settings, held_out),
    ]


def _published(found: Found) -> Iterator[str]:
    """Which engine the published gain fits."""
    told = {
        ratio: gain for ratio, gain in PUBLISHED_GAIN.items() if ratio in found.ratios and ratio
    }
    for engine in found.engines:
        pairs = [
            (ours, ratio)
            for ratio in told
            if (ours := found.get(engine, ratio, "sjf", "sqlm", "tps_vs_qlm")) is not None
        ]
        if not pairs:
            continue
        parts = [
            f"{_change(ours)} at {ratio:.0%} (published {told[ratio] - 1:+.1%})"
            for ours, ratio in pairs
        ]
        fits = _fits([(ours, told[ratio]) for ours, ratio in pairs])
        yield (
            f"With {ENGINES[engine]}, S-QLM changes tokens a second of LLM time against QLM by "
            f"{', '.join(parts)}: {fits}."
        )


def _fits(pairs: Sequence[tuple[Fig1Result, float]]) -> str:
    """Whether the published gains lie in the intervals of ours, and what these show by themselves.

    Of a sign nothing is said where an interval has both.
    """
    bounds = [(one.low, one.high, gain) for one, gain in pairs if one.low and one.high]
    if len(bounds) < len(pairs):
        return (
            "a single draw of each set of corpora has no interval to hold the published gain "
            "against"
        )
    inside = sum(low <= gain <= high for low, high, gain in bounds)
    these = "these intervals" if len(bounds) > 1 else "this interval"
    if inside == len(bounds):
        nothing = ", and so does none at all" if any(low <= 1 for low, _, _ in bounds) else ""
        return f"the published gain lies inside {these}{nothing}"
    if inside:
        return f"the published gain lies inside {inside} of these intervals"
    if all(low > 1 for low, _, _ in bounds):
        return "the sign is the published one, the size is not"
    return "this does not show the published gain"


def _orders(found: Found) -> Iterator[str]:
    """What shortest first and longest first buy at best."""
    most = found.ratios[-1]
    for engine in found.engines:
        parts = []
        for policy, words in (("sjf", "shortest first"), ("longest-first", "longest first")):
            speed = found.get(engine, most, policy, "oracle", "tps_vs_fcfs")
            wait = found.get(engine, most, policy, "oracle", "mean_e2el_ms_vs_fcfs")
            if speed and wait:
                parts.append(
                    f"{words} by the truth gives {speed.value:.2f} times the tokens a second and "
                    f"{wait.value:.2f} times the mean latency"
                )
        if parts:
            yield f"With {ENGINES[engine]}, against first come first served: {'; '.join(parts)}."
    most_ratio = found.ratios[-1]
    one = found.get("continuous", most_ratio, "sjf", "sqlm", "mean_e2el_ms_vs_qlm")
    if one:
        line = (
            f"What S-QLM buys with continuous batching is latency: mean {_change(one)} against QLM "
            f"with all at once at {most_ratio:.0%}"
        )
        load = found.get(
            "continuous", most_ratio, "sjf", "sqlm", "mean_e2el_ms_vs_qlm", arrivals="poisson"
        )
        yield f"{line}, {_change(load)} in a stream." if load else f"{line}."


def _small_model(found: Found, settings: Fig1Settings) -> Iterator[str]:
    """What the small model's time does to the gain."""
    most = found.ratios[-1]
    for engine in found.engines:
        parts = []
        for slm, words in (
            ("apart", "not counted"),
            ("added", "added in front"),
            ("hidden", "spent while requests wait"),
        ):
            ours = found.get(engine, most, "sjf", "sqlm", "tps_vs_qlm", slm=slm)
            if ours:
                parts.append(f"{_change(ours)} with its time {words}")
        asked = found.get(engine, most, "sjf", "sqlm", "slm_s")
        if parts and asked:
            yield (
                f"With {ENGINES[engine]} at {most:.0%} the small model is at work for "
                f"{asked.value:.0f} s (published {PUBLISHED_SLM_S[0.8]:.0f} s at 80 %; "
                f"{1e3 * settings.slm_s:.0f} ms for each request that it is asked for). Tokens a "
                f"second against QLM: {', '.join(parts)}."
            )


def _gate(found: Found) -> Iterator[str]:
    """Where the gate costs what the small model knows."""
    engine = found.engines[0]  # they replay the same requests
    for ratio in sorted({found.ratios[0], found.ratios[-1]}):
        asked = found.get(engine, ratio, "sjf", "sqlm", "slm_requests")
        some = found.get(engine, ratio, "sjf", "sqlm", "tau")
        every = found.get(engine, ratio, "sjf", "sqlm-all", "tau")
        none = found.get(engine, ratio, "sjf", "qlm", "tau")
        gain = found.get(engine, ratio, "sjf", "sqlm", "tau_minus_qlm")
        if asked and some and every and none and gain:
            yield (
                f"With {ratio:.0%} of the requests from corpora that were kept from training, tau "
                f"is {none.value:.2f} by QLM, {some.value:.2f} by S-QLM ({_interval(gain)} against "
                f"QLM), which asks the small model for {asked.value:,.0f} requests, and "
                f"{every.value:.2f} with the small model on every query."
            )


def _differences(settings: Fig1Settings, held_out: Sequence[Sequence[str]]) -> Iterator[str]:
    held = "; ".join(" + ".join(names) for names in held_out)
    real = OFFLINE in settings.engines
    scaled = ", and scaled by what the machine takes" if real else ""
    engine = (
        "vLLM with a small model on this machine, answers forced to recorded lengths"
        if real
        else "a replay with a 7B model's step times on two L40S by roofline"
    )
    yield (
        f"Why they differ: the engine here is {engine}, while the publication does not give its "
        "arrivals, its absolute tokens a second, what made a query out of distribution, QLM's "
        "training data or the number of repetitions. "
        f"Here a request is out of distribution when its corpus was kept from training ({held}), "
        f"and each figure is the mean of {settings.draws} draws, each with another split of the "
        "other rows into training and test, of "
        f"{settings.requests:,} requests."
    )
    yield (
        "The small model's time is that published for a request that it is asked for "
        f"({1e3 * settings.slm_s:.0f} ms, one after the other, on hardware of its own), not "
        f"measured{scaled}."
    )


def _change(result: Fig1Result) -> str:
    """A ratio as a change: "+3.1 % (-0.2 to +6.5)"."""
    if result.low is None or result.high is None:
        return f"{result.value - 1:+.1%}".replace("%", " %")
    return (
        f"{100 * (result.value - 1):+.1f} % ({100 * (result.low - 1):+.1f} to "
        f"{100 * (result.high - 1):+.1f})"
    )


def _interval(result: Fig1Result) -> str:
    if result.low is None or result.high is None:
        return f"{result.value:+.2f}"
    return f"{result.value:+.2f}, {result.low:+.2f} to {result.high:+.2f}"
