"""What an order brings and costs, in sentences: only what intervals bear out."""

from collections.abc import Iterator, Sequence
from math import log

from lengthpred.eval.replay.arms import Arm, control_of
from lengthpred.eval.replay.settings import REAL_ENGINES, SERVER
from lengthpred.eval.report.lookup import Replays, Scenario
from lengthpred.eval.report.tables import arrivals_name, scenario_name
from lengthpred.eval.report.words import change, listed, number, percent
from lengthpred.eval.simulate import ReplayResult, Simulation

__all__ = ["best_arm", "goal_of", "judge_simulation", "policy_name"]

LATENCY, THROUGHPUT = "mean_e2el_ms", "total_token_throughput"
NAMES = {LATENCY: "mean latency", THROUGHPUT: "tokens/s"}
PRICES = {
    **NAMES,
    "mean_e2el_ms_longest_tenth": "the longest tenth's latency",
    "p99_e2el_ms": "p99 latency",
}
"""What a gain may cost."""
POLICY_NAMES = {"sjf": "shortest first", "longest-first": "longest first"}
CONTROL_NAMES = {
    "prompt-sjf": "shortest prompt first",
    "longest-prompt-first": "longest prompt first",
}
EMPTY = 2.0  # a queue in which fewer wait on average
LITTLE = 0.02  # what the oracle changes where no order matters
SMALL = 0.01  # a change that is hardly worth anything
FCFS_NAME, WORTH = "first come, first served", "it is worth it"


def judge_simulation(simulation: Simulation) -> list[str]:
    """For each policy with its best predictor: what it does to waiting and work, and if it pays."""
    replays = Replays(simulation)
    policies = replays.policies()
    if not policies:
        return ["No predictor was replayed: these are the controls alone."]
    quiet = [at for at in replays.scenarios if _is_quiet(replays, at)]
    busy = _highest([at for at in replays.scenarios if at not in quiet])
    said: list[str] = []
    if busy:
        for policy in policies:
            said += _Told(replays, policy, busy).sentences()
    said += _quiet(replays, quiet)
    settings = simulation.settings
    draws = f"Mean of {settings.draws} draws" if settings.draws > 1 else "One draw"
    said.append(f"{draws} of {settings.requests:,} requests on {_engine(simulation)}.")
    return said


def _engine(simulation: Simulation) -> str:
    settings = simulation.settings
    if settings.engine in REAL_ENGINES:
        return "vLLM's server" if settings.engine == SERVER else "vLLM, as fixed batches"
    kind = "engine" if settings.engine == "continuous" else f"engine ({settings.engine})"
    assumed = "; what it assumes is in the notes" if simulation.notes else ""
    return f"a replayed {kind} of {settings.hardware.slots:,} slots{assumed}"


def policy_name(policy: str) -> str:
    return POLICY_NAMES.get(policy, policy)


def goal_of(policy: str) -> str:
    """The measure that a policy is there for."""
    return THROUGHPUT if policy == "longest-first" else LATENCY


def best_arm(replays: Replays, at: Scenario, policy: str) -> Arm:
    """The policy's predictor that serves its goal best."""
    return _best_over(replays, [at], policy)


def _best_over(replays: Replays, scenarios: Sequence[Scenario], policy: str) -> Arm:
    metric, sign = f"{goal_of(policy)}_vs_fcfs", _wanted(policy)
    return max(
        replays.policies()[policy],
        key=lambda arm: sign * sum(log(replays.value(at, arm, metric)) for at in scenarios),
    )


def _wanted(policy: str) -> int:
    """1 where the goal is to be high, -1 where it is to be low."""
    return 1 if goal_of(policy) == THROUGHPUT else -1


def _highest(busy: Sequence[Scenario]) -> list[Scenario]:
    """Of each sweep of loads or rates the highest."""
    found: dict[tuple[str, float | None], Scenario] = {}
    for at in sorted(busy, key=lambda at: at.x or 0):
        found[at.arrivals, at.ood_ratio] = at
    return [at for at in busy if at in found.values()]


def _waiting(replays: Replays, at: Scenario) -> float:
    return replays.value(at, Arm("fcfs"), "mean_queue_depth")


def _is_quiet(replays: Replays, at: Scenario) -> bool:
    """Whether few wait and even the true lengths bring next to nothing."""
    if _waiting(replays, at) >= EMPTY:
        return False
    effects = _oracle_effects(replays, at)
    return all(abs(one.value - 1) < LITTLE or _may_be_chance(one) for one in effects)


def _oracle_effects(replays: Replays, at: Scenario) -> list[ReplayResult]:
    return [
        found
        for policy in replays.policies()
        if (found := replays.get(at, Arm(policy, "oracle"), f"{goal_of(policy)}_vs_fcfs"))
    ]


def _quiet(replays: Replays, quiet: Sequence[Scenario]) -> Iterator[str]:
    if not quiet:
        return
    where = scenario_name(quiet[0]) if len(quiet) == 1 else f"{len(quiet)} scenarios"
    most = max(_waiting(replays, at) for at in quiet)
    said = f"With hardly a queue ({where}: at most {number(most)} waiting on average)"
    effects = [one for at in quiet for one in _oracle_effects(replays, at)]
    if not effects:
        yield f"{said} there is little to order."
        return
    largest = max(effects, key=lambda one: abs(log(one.value)))
    doubt = ", in one draw" if largest.low is None else ""
    doubt = ", which may be chance" if _may_be_chance(largest) else doubt
    yield f"{said} no order matters: the oracle's is {change(largest.value)} at most{doubt}."


class _Told:
    """What there is to say of a policy: in full of the lowest OOD ratio, in short of the others."""

    def __init__(self, replays: Replays, policy: str, busy: Sequence[Scenario]) -> None:
        kinds = dict.fromkeys(at.arrivals for at in busy)
        by_kind = [[at for at in busy if at.arrivals == kind] for kind in kinds]
        self.replays, self.policy = replays, policy
        self.shown = [min(own, key=lambda at: at.ood_ratio or 0.0) for own in by_kind]
        self.rest = [at for at in busy if at not in self.shown]
        self.arm, self.control = _best_over(replays, self.shown, policy), control_of(policy)
        self.goal, self.wanted = goal_of(policy), _wanted(policy)

    def sentences(self) -> Iterator[str]:
        yield self.headline()
        against = [(one, at) for at in self.shown if (one := self.get(at, "prompt"))]
        if against:
            parts = [f"{_precise(one)} {self.where(at)}" for one, at in against]
            yield f"Against {self.control.policy} that is {listed(parts)}."
        yield self.conclusion()
        yield from self.others()

    def get(self, at: Scenario, rival: str, arm: Arm | None = None) -> ReplayResult | None:
        return self.replays.get(at, arm or self.arm, f"{self.goal}_vs_{rival}")

    def headline(self) -> str:
        """All numbers side by side."""
        order = policy_name(self.policy)
        ratios = {at.ood_ratio for at in self.shown}
        ratio = _ratio_name(ratios.pop()) if len(ratios) == 1 else ""
        own = [f"{self.marked(at)} {self.where(at, full=True)}" for at in self.shown]
        free = f"{CONTROL_NAMES[self.control.policy]} ({self.control.policy}), which needs no "
        known = {f"{free}predictor,": self.control, "the oracle": Arm(self.policy, "oracle")}
        beside = ""
        for name, arm in known.items():
            found = [self.get(at, "fcfs", arm) for at in self.shown]
            if values := [change(one.value) for one in found if one]:
                beside += f"{',' if beside else ';'} {name} {listed(values)}"
        return (
            f"{order[:1].upper()}{order[1:]} by {self.arm.predictor}{ratio}: {NAMES[self.goal]} "
            f"{listed(own)}{beside}."
        )

    def where(self, at: Scenario, *, full: bool = False) -> str:
        """How requests came; in full once, then as short as can be told from the others."""
        name = f"with {self.replays.requests:,} requests at once"
        if at.arrivals != "burst":
            plain = Scenario(at.arrivals, at.load, at.rate, None)
            queues = [one for one in self.shown if one.arrivals != "burst"]
            detail = f" ({arrivals_name(at.arrivals)})" if len(queues) > 1 else ""
            detail = f" ({scenario_name(plain)})" if full else detail
            name = f"with a queue of {number(_waiting(self.replays, at))}{detail}"
        differ = len({one.ood_ratio for one in self.shown}) > 1
        return name + (_ratio_name(at.ood_ratio) if differ and at in self.shown else "")

    def marked(self, at: Scenario, rival: str = "fcfs") -> str:
        """A change, and whether it is a loss or may be none."""
        found = self.get(at, rival)
        if found is None:
            raise ValueError(f"the simulation does not hold {self.goal} against {rival}")
        shown = change(found.value)
        if _may_be_chance(found):
            return f"{shown} (may be chance)"
        lost = rival == "fcfs" and _sign(found) == -self.wanted
        return f"{shown} (a loss)" if lost else shown

    def conclusion(self) -> str:
        """Where it is worth it, by the intervals against both."""
        if any(self.of(at).low is None for at in self.shown):
            return "One draw cannot tell a gain from chance: give two draws or more."
        by_claim: dict[str, list[Scenario]] = {}
        for at in self.shown:
            by_claim.setdefault(self.claim(at), []).append(at)
        parts = []
        for claim, scenarios in by_claim.items():
            worth = claim == WORTH
            # What holds everywhere needs no places, but what is praised has them always.
            named = worth or len(by_claim) > 1
            places = f" {listed([self.where(at) for at in scenarios])}" if named else ""
            parts.append(f"{claim}{places}{self.price(scenarios) if worth else ''}")
        said = "; ".join(parts)
        return f"{said[:1].upper()}{said[1:]}."

    def claim(self, at: Scenario) -> str:
        """What one scenario shows."""
        own, beyond, control = self.of(at), self.get(at, "prompt"), self.control.policy
        if _sign(own) == -self.wanted:
            return f"it makes {NAMES[self.goal]} worse than {FCFS_NAME}"
        if beyond and _sign(beyond) == -self.wanted:
            return f"it does less than {control}"
        if _sign(own) == 0:
            return f"these draws do not tell it from {FCFS_NAME}"
        if beyond is None:
            return f"it beats {FCFS_NAME}, and was not compared with {control} draw by draw"
        if _sign(beyond) == 0:
            return f"these draws do not tell it from {control}"
        if abs(beyond.value - 1) < SMALL:
            return f"what it adds to {control} is real, and hardly worth a predictor"
        return WORTH

    def price(self, scenarios: Sequence[Scenario]) -> str:
        """What gets worse by 1 % or more and by more than chance, at its worst."""
        worst: dict[str, float] = {}
        for metric in PRICES:
            sign = -1 if metric == THROUGHPUT else 1
            found = [self.replays.get(at, self.arm, f"{metric}_vs_fcfs") for at in scenarios]
            worse = [r.value for r in found if r and _sign(r) == sign and abs(r.value - 1) >= SMALL]
            if worse and metric != self.goal:
                worst[metric] = sign * max(sign * value for value in worse)
        paid = [f"{PRICES[metric]} ({change(value)})" for metric, value in worst.items()]
        return f", at the price of {listed(paid)}" if paid else ""

    def others(self) -> Iterator[str]:
        """The other OOD ratios, in one sentence."""
        if not self.rest:
            return
        parts = []
        for first in self.shown:
            own = [at for at in self.rest if at.arrivals == first.arrivals]
            if not own:
                continue
            name = self.where(first)
            if first.arrivals != "burst":
                depths = [number(_waiting(self.replays, at)) for at in own]
                name = f"with {'queues' if len(own) > 1 else 'a queue'} of {listed(depths)}"
            part = f"{listed([self.marked(at) for at in own])} {name}"
            if all(self.get(at, "prompt") for at in own):
                against = listed([self.marked(at, "prompt") for at in own])
                part += f", against {self.control.policy} {against}"
            parts.append(part)
        shares = listed(list(dict.fromkeys(percent(at.ood_ratio or 0.0) for at in self.rest)))
        yield f"At {shares} out of distribution: {'; '.join(parts)}."

    def of(self, at: Scenario) -> ReplayResult:
        found = self.get(at, "fcfs")
        if found is None:
            raise ValueError(f"the simulation does not hold {self.goal} against fcfs")
        return found


def _ratio_name(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f", {percent(ratio)} out of distribution" if ratio else ", in distribution"


def _precise(found: ReplayResult) -> str:
    """A change with its interval, to a tenth of a point: what a predictor adds is often small."""
    if found.low is None or found.high is None:
        return _tenths(found.value)
    doubt = ", which includes no effect" if _sign(found) == 0 else ""
    low, high = _tenths(found.low).removesuffix(" %"), _tenths(found.high)
    return f"{_tenths(found.value)} ({low} to {high}{doubt})"


def _tenths(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %".replace("-", "\N{MINUS SIGN}")


def _may_be_chance(found: ReplayResult) -> bool:
    return found.low is not None and _sign(found) == 0


def _sign(result: ReplayResult) -> int:
    """Above or below 1, or 0 where its interval does not say."""
    if result.low is None or result.high is None:
        return 0
    return (result.low > 1) - (result.high < 1)
