"""The report of comparisons and simulations: what is told on its page, in which order."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lengthpred.eval.compare import Comparison
from lengthpred.eval.replay.arms import Arm
from lengthpred.eval.report.accuracy import accuracy_panels
from lengthpred.eval.report.answers import answer_panels, worst_misses
from lengthpred.eval.report.gains import judge_simulation
from lengthpred.eval.report.layout import Parts, write_page
from lengthpred.eval.report.lookup import Replays, Scores
from lengthpred.eval.report.panels import Table
from lengthpred.eval.report.queue import simulation_panels
from lengthpred.eval.report.remaining import remaining_parts
from lengthpred.eval.report.tables import score_tables, simulation_tables
from lengthpred.eval.report.theme import Looks
from lengthpred.eval.report.timeline import replay_panels
from lengthpred.eval.report.verdict import judge_comparison
from lengthpred.eval.simulate import Simulation

__all__ = ["write_report"]

Section = Callable[[Scores, Looks], tuple[str, Parts]]


def write_report(
    path: str | os.PathLike[str],
    *,
    comparison: Comparison | None = None,
    simulation: Simulation | Mapping[str, Simulation] | None = None,
    title: str = "Predicted output lengths",
    prompts: bool = True,
    repeat: Mapping[str, str] | None = None,
    first: Section | None = None,
) -> Path:
    """Write a comparison, a simulation (or several, by name), or both as one HTML file.

    It needs no network and is whole or absent; what is at `path` is replaced. Without `prompts`
    no prompt's text is in it. `repeat` is what it takes to make it again: the command, the seed,
    the data's sha256, by name. `first` makes a section that stands before those of the comparison,
    in place of its plot of accuracy against cost. Raises MissingExtraError when plotly is not
    installed.
    """
    if simulation is None or isinstance(simulation, Simulation):
        simulations = {"": simulation} if simulation else {}
    else:
        simulations = dict(simulation)
    return write_page(
        path,
        title=title,
        about=_about(comparison),
        verdict=_verdict(comparison, simulations),
        sections=_sections(comparison, simulations, first, prompts=prompts),
        notes=_notes(comparison, simulations),
        repeat=repeat,
    )


def _sections(
    comparison: Comparison | None,
    simulations: Mapping[str, Simulation],
    first: Section | None,
    *,
    prompts: bool,
) -> Iterator[tuple[str, Parts]]:
    looks = Looks(_names(comparison, simulations))
    if comparison:
        if first:
            yield first(Scores(comparison.results), looks)
        yield from _comparison_sections(comparison, looks, prompts=prompts, cost=first is None)
    for name, one in simulations.items():
        yield from _simulation_sections(name, one, looks)


def _names(comparison: Comparison | None, simulations: Mapping[str, Simulation]) -> Iterator[str]:
    """The predictors, the best one first."""
    if comparison:
        scores = Scores(comparison.results)
        split = scores.splits[0] if scores.splits else "all"
        best = scores.best("pairwise_accuracy", split, scores.predictors)
        names = [best.predictor] if best else []
        yield from dict.fromkeys([*names, *scores.predictors])
    seen = set(Scores(comparison.results).predictors) if comparison else set()
    for one in simulations.values():
        for result in one.results:
            if result.predictor and result.predictor not in seen:
                seen.add(result.predictor)
                yield result.predictor


def _comparison_sections(
    comparison: Comparison, looks: Looks, *, prompts: bool, cost: bool
) -> Iterator[tuple[str, Parts]]:
    scores = Scores(comparison.results)
    if scores.splits:
        yield "Accuracy", list(accuracy_panels(scores, looks, cost=cost))
    answers = list(answer_panels(comparison, scores, looks))
    if answers:
        yield "Answers", answers
    left = list(remaining_parts(scores, looks))
    if left:
        yield "While an answer grows", left
    tables: list[Table] = list(score_tables(scores))
    best = (
        scores.best("pairwise_accuracy", scores.splits[0], scores.predictors)
        if scores.splits
        else None
    )
    if best and best.predictor in comparison.answers:
        tables.append(worst_misses(comparison, best.predictor, prompts=prompts))
    yield "Scores", tables


def _simulation_sections(
    name: str, simulation: Simulation, looks: Looks
) -> Iterator[tuple[str, Parts]]:
    replays, of = Replays(simulation), f": {name}" if name else ""
    pictures = list(replay_panels(simulation.replays, replays, looks))
    if pictures:
        yield f"Schedule{of}", pictures
    panels = list(simulation_panels(replays, looks))
    if panels:
        yield f"Latency and throughput{of}", panels
    yield f"{replays.what}s{of}", list(simulation_tables(replays))


def _about(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    models = {request.model for request in comparison.rows.requests}
    known = len(models) == 1 and models != {""}
    by = f"answered by {next(iter(models))}" if known else f"answers of {len(models)} models"
    return f"{len(comparison.rows):,} requests, {by}"


def _verdict(
    comparison: Comparison | None, simulations: Mapping[str, Simulation]
) -> Iterator[tuple[str, Sequence[str]]]:
    if comparison:
        yield "", judge_comparison(comparison, _answer_seconds(simulations))
    for name, one in simulations.items():
        heading = f"Schedules: {name}" if name else "Schedules"
        yield heading if comparison or name else "", judge_simulation(one)


def _answer_seconds(simulations: Mapping[str, Simulation]) -> float | None:
    """How long a mean answer is written, first come, first served."""
    for one in simulations.values():
        replay = one.replays.get(Arm("fcfs"))
        if replay:
            return float((replay.trace.finish_s - replay.trace.start_s).mean())
    return None


def _notes(comparison: Comparison | None, simulations: Mapping[str, Simulation]) -> Iterator[str]:
    yield from comparison.notes if comparison else ()
    for one in simulations.values():
        yield from one.notes
