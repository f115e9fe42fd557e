"""What an order brings and costs, in sentences: only what intervals bear out."""

from collections.abc import Iterator, Sequence

from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.report.lookup import Replays, Scenario
from lengthpred.eval.report.tables import scenario_name
from lengthpred.eval.report.words import change, interval, listed, number, percent
from lengthpred.eval.simulate import ReplayResult, Simulation

__all__ = ["best_arm", "control_of", "goal_of", "judge_simulation", "policy_name"]

LATENCY, THROUGHPUT = "mean_e2el_ms", "total_token_throughput"
NAMES = {
    LATENCY: "mean latency",
    THROUGHPUT: "tokens/s",
    "mean_e2el_ms_longest_tenth": "the longest tenth's latency",
}
PRICES = {**NAMES, "p99_e2el_ms": "p99 latency"}
"""What a gain may cost."""
POLICY_NAMES = {"sjf": "shortest first", "longest-first": "longest first"}
EMPTY = 2.0  # a queue in which fewer wait on average


def judge_simulation(simulation: Simulation) -> list[str]:
    """For each policy with its best predictor: what it does to waiting and work, and if it pays."""
    replays = Replays(simulation)
    policies = replays.policies()
    if not policies:
        return ["No predictor was replayed: these are the controls alone."]
    busy = [at for at in replays.scenarios if _waiting(replays, at) >= EMPTY]
    said = list(_quiet(replays, [at for at in replays.scenarios if at not in busy]))
    for policy in policies:
        shown = _telling(busy)
        for at in shown:
            said.append(_gain(replays, at, best_arm(replays, at, policy)))
        if shown:
            said.append(_worth(replays, shown, policy))
    return said


def policy_name(policy: str) -> str:
    return POLICY_NAMES.get(policy, policy)


def goal_of(policy: str) -> str:
    """The measure that a policy is there for."""
    return THROUGHPUT if policy == "longest-first" else LATENCY


def best_arm(replays: Replays, at: Scenario, policy: str) -> Arm:
    """The policy's predictor that serves its goal best."""
    goal = goal_of(policy)
    sign = 1 if goal == THROUGHPUT else -1
    return max(
        replays.policies()[policy], key=lambda arm: sign * replays.value(at, arm, f"{goal}_vs_fcfs")
    )


def control_of(policy: str) -> Arm:
    """The same by the length of the prompt."""
    return Arm("longest-prompt-first" if policy == "longest-first" else "prompt-sjf")


def _waiting(replays: Replays, at: Scenario) -> float:
    return replays.value(at, Arm("fcfs"), "mean_queue_depth")


def _telling(busy: Sequence[Scenario]) -> list[Scenario]:
    """Of each sweep the highest load that can be borne and the highest, and what is no sweep."""
    shown: list[Scenario] = []
    for kind in dict.fromkeys((at.arrivals, at.ood_ratio) for at in busy):
        own = sorted((a for a in busy if (a.arrivals, a.ood_ratio) == kind), key=lambda a: a.x or 0)
        borne = [at for at in own if at.load is not None and at.load <= 1]
        shown += dict.fromkeys([*borne[-1:], own[-1]])
    return shown


def _quiet(replays: Replays, quiet: Sequence[Scenario]) -> Iterator[str]:
    if not quiet:
        return
    where = listed([scenario_name(at) for at in quiet])
    most = max(_waiting(replays, at) for at in quiet)
    effects = [
        found
        for at in quiet
        for policy in replays.policies()
        if (found := replays.get(at, Arm(policy, "oracle"), f"{goal_of(policy)}_vs_fcfs"))
    ]
    few = f"With hardly a queue ({where}: at most {number(most)} waiting on average)"
    if all(abs(found.value - 1) < 0.01 or _sign(found) == 0 for found in effects):
        yield f"{few} no order helps."
    else:
        largest = max(effects, key=lambda found: abs(found.value - 1))
        yield f"{few} even the oracle gains little: {change(largest.value)}."


def _gain(replays: Replays, at: Scenario, arm: Arm) -> str:
    """What one arm does to its goal, to the other, and to the longest answers."""
    goal = goal_of(arm.policy)
    others = [name for name in NAMES if name != goal]
    oracle = replays.get(at, Arm(arm.policy, "oracle"), f"{goal}_vs_fcfs")
    effects = []
    for metric in (goal, *others):
        found = replays.get(at, arm, f"{metric}_vs_fcfs")
        if found:
            most = f"; the oracle {change(oracle.value)}" if metric == goal and oracle else ""
            effects.append(_effect(found, NAMES[metric], most))
    waiting = number(_waiting(replays, at))
    if at.arrivals == "burst":
        where = f"With {replays.requests:,} requests at once"
        if at.ood_ratio is not None:
            where += f" ({percent(at.ood_ratio)} out of distribution)"
    else:
        where = f"With a queue of {waiting} waiting on average ({scenario_name(at)})"
    if replays.engine != "continuous":
        where += f" on the engine {replays.engine}"
    return f"{where}, {policy_name(arm.policy)} by {arm.predictor}: {listed(effects)}."


def _effect(found: ReplayResult, what: str, most: str) -> str:
    if found.low is None or found.high is None:
        return f"{what} {change(found.value)} (of one draw{most})"
    if max(abs(found.low - 1), abs(found.high - 1)) < 0.01:
        return f"{what} unchanged{f' ({most[2:]})' if most else ''}"
    doubt = ", which includes no effect" if _sign(found) == 0 else ""
    bounds = interval(found, change).strip(" ()")
    return f"{what} {change(found.value)} ({bounds}{doubt}{most})"


def _worth(replays: Replays, shown: Sequence[Scenario], policy: str) -> str:
    """Whether any of the scenarios has a gain that the length of the prompt does not give."""
    goal = goal_of(policy)
    wanted = 1 if goal == THROUGHPUT else -1
    name, order = NAMES[goal], policy_name(policy)
    gains = [at for at in shown if _sign(_of(replays, at, policy, goal)) == wanted]
    if not gains:
        return f"No gain in {name} from {order} by a predictor is more than chance here."
    beyond = [at for at in gains if _beyond_control(replays, at, policy, wanted) > 0]
    control = control_of(policy).policy
    if not beyond and all(_beyond_control(replays, at, policy, wanted) < 0 for at in gains):
        return f"{control}, which needs no predictor, does more for {name} than {order} by any."
    if not beyond:
        return f"For {name}, {order} by a predictor does no more than {control}, which needs none."
    price = [
        PRICES[other]
        for other in PRICES
        if other != goal and any(_suffers(replays, at, policy, other) for at in beyond)
    ]
    predictors = listed(
        list(dict.fromkeys(str(best_arm(replays, at, policy).predictor) for at in beyond))
    )
    cost = f"; the price is {listed(price)}" if price else ""
    return f"For {name}, {order} by {predictors} is worth it where requests queue{cost}."


def _suffers(replays: Replays, at: Scenario, policy: str, metric: str) -> bool:
    """Whether a measure gets worse by 1 % or more, and by more than chance."""
    found = replays.get(at, best_arm(replays, at, policy), f"{metric}_vs_fcfs")
    worse = -1 if metric == THROUGHPUT else 1
    return found is not None and _sign(found) == worse and abs(found.value - 1) >= 0.01


def _of(replays: Replays, at: Scenario, policy: str, metric: str) -> ReplayResult:
    found = replays.get(at, best_arm(replays, at, policy), f"{metric}_vs_fcfs")
    if found is None:
        raise ValueError(f"the simulation does not hold {metric} against fcfs")
    return found


def _beyond_control(replays: Replays, at: Scenario, policy: str, wanted: int) -> int:
    """1 where the predictor gains more than the control, -1 for less, 0 where intervals meet."""
    own = _of(replays, at, policy, goal_of(policy))
    control = replays.get(at, control_of(policy), f"{goal_of(policy)}_vs_fcfs")
    if control is None:
        return 1
    if own.low is None or own.high is None or control.low is None or control.high is None:
        return 0
    return wanted * ((own.low > control.high) - (own.high < control.low))


def _sign(result: ReplayResult) -> int:
    """Above or below 1, or 0 where its interval does not say."""
    if result.low is None or result.high is None:
        return 0
    return (result.low > 1) - (result.high < 1)
