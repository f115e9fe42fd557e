"""`lengthpred simulate`: what predictors mean for a queue."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lengthpred.cli.console import steps
from lengthpred.cli.named import parse_ratios
from lengthpred.cli.simulate_inputs import (
    check_options,
    check_ratio,
    fit_step_times,
    load_all,
    parse_numbers,
    sort_out,
    time_predictions,
)
from lengthpred.errors import SettingsError

__all__ = ["register"]

TRAIN_ROWS = 200_000
LOADS = (0.8, 1.0, 1.2, 1.5)


class Engines(StrEnum):
    """Engines that are replayed."""

    CONTINUOUS = "continuous"
    GANG = "gang"
    SLICES = "slices"
    VLLM = "vllm"


class PredictionTime(StrEnum):
    """What becomes of the time that a prediction takes."""

    CHARGE = "charge"
    HIDE = "hide"
    NONE = "none"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("simulate")(simulate_command)


def simulate_command(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="The table that requests are drawn from.")],
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Further predictors and policies.", show_default=False
        ),
    ] = None,
    predictor: Annotated[
        list[str] | None,
        typer.Option(
            help="Artifact, or control by name: constant, prompt-length, oracle, oracle-noise, "
            "samples-mean, samples-max. May be given again.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="sjf, srpt, gittins, mlfq, slo, edf, prompt-sjf, random, longest-first, "
            "longest-prompt-first. May be given again; fcfs is always there. By default sjf.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for simulate.json, simulate.csv and report.html.", show_default=False
        ),
    ] = None,
    train_data: Annotated[
        Path | None,
        typer.Option(help="The table that controls learn from; else --data.", show_default=False),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests of a replay.")] = 1000,
    draws: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Replays, each on other requests; by default 5 (of an experiment 20).",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        Engines | None,
        typer.Option(
            help="How the engine batches; by default continuous (an experiment: all of its own).",
            show_default=False,
        ),
    ] = None,
    arrivals: Annotated[
        str,
        typer.Option(help="burst (all at once), poisson, bursty, trace (column arrival_s)."),
    ] = "burst,poisson",
    load: Annotated[
        str | None,
        typer.Option(
            help="Arrival rates, as shares of what the engine can serve; by default 0.8,1,1.2,1.5.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Arrival rates in requests a second, in place of --load.", show_default=False
        ),
    ] = None,
    burstiness: Annotated[float, typer.Option(help="Of bursty arrivals; 1 is poisson.")] = 0.25,
    ood_ratio: Annotated[
        str | None,
        typer.Option(help="Shares of OOD requests; else as they come.", show_default=False),
    ] = None,
    sum_limit: Annotated[
        int | None,
        typer.Option(min=2, help="Most tokens of a request, in and out.", show_default=False),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, help="Requests that run at once.")] = 256,
    token_budget: Annotated[int, typer.Option(min=1, help="Tokens computed in a step.")] = 8192,
    kv_tokens: Annotated[int, typer.Option(min=1, help="Room of the KV cache.")] = 219_000,
    watermark: Annotated[
        float, typer.Option(help="Share of the KV cache that admission leaves free.")
    ] = 0.05,
    slice_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a slice.")] = 128,
    step_times: Annotated[
        Path | None,
        typer.Option(
            help="Measured steps to fit step times to: a CSV with the columns seconds, "
            "prefill_tokens and kv_tokens.",
            show_default=False,
        ),
    ] = None,
    prediction_time: Annotated[
        PredictionTime,
        typer.Option(
            help="charge: requests wait for their prediction; hide: it is made while they wait; "
            "none: not counted."
        ),
    ] = PredictionTime.CHARGE,
    max_overtake_s: Annotated[
        float,
        typer.Option(help="A request is overtaken only by those that come within so many seconds."),
    ] = 1800.0,
    prefill_weight: Annotated[
        float, typer.Option(help="Cost of a prompt token, in output tokens.")
    ] = 0.0,
    quantile: Annotated[
        float | None,
        typer.Option(help="Order by this quantile of the length.", show_default=False),
    ] = None,
    preemption_ratio: Annotated[
        float,
        typer.Option(
            help="srpt: what has written this share of its predicted length is not preempted."
        ),
    ] = 0.8,
    experiment: Annotated[
        str | None,
        typer.Option(
            help="sqlm-fig1: the published experiment on S-QLM, trained here without some domains.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            help="Of an experiment: the table of the small model's lengths, with the same ids.",
            show_default=False,
        ),
    ] = None,
    hold_out: Annotated[
        str | None,
        typer.Option(
            help="Of an experiment: domains kept from training; by default each one in turn.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Of an experiment: a recipe for sqlm.", show_default=False),
    ] = None,
    slm_seconds: Annotated[
        float,
        typer.Option(min=0, help="Of an experiment: the small model's time for a request."),
    ] = 0.054,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws.")] = 0,
    max_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Draw from a sample of so many rows.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace results in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print simulate.json's content.")] = False,
) -> None:
    """Replay requests on a virtual clock under several orders, beside controls.

    Shows what a predictor is worth to a server: latency, throughput, and who pays.
    """
    from lengthpred.cli.report import tell_simulation
    from lengthpred.cli.sqlm_fig1 import Given, check_experiment, run_experiment
    from lengthpred.data.table import Table
    from lengthpred.eval.output import check_out
    from lengthpred.eval.replay.draws import check_recorded
    from lengthpred.eval.replay.settings import SimulationSettings
    from lengthpred.eval.replay.step_time import PRESET
    from lengthpred.eval.replay.workload import Engine
    from lengthpred.eval.simulate import simulate
    from lengthpred.eval.sqlm_fig1.setting import Fig1Settings
    from lengthpred.ordering import OrderingSettings

    check_options(context, experiment is not None)
    hardware = Engine(
        slots=slots,
        token_budget=token_budget,
        kv_tokens=kv_tokens,
        watermark=watermark,
        step_time=PRESET if step_times is None else fit_step_times(step_times),
    )
    if experiment is not None:
        check_experiment(experiment)
        run_experiment(
            Given(data, samples, hold_out, recipe, out, seed, force, as_json),
            Fig1Settings(
                ratios=(0.0, 0.5, 0.8) if ood_ratio is None else parse_ratios(ood_ratio),
                sum_limits=(2024, 1024, 512) if sum_limit is None else (sum_limit,),
                engines=("continuous", "gang") if engine is None else (engine.value,),
                requests=requests,
                draws=draws or 20,
                slm_s=slm_seconds,
                hardware=hardware,
            ),
        )
        return
    if out is not None:
        check_out(out, force=force, name="simulate")
    if load is not None and rate is not None:
        raise SettingsError("--load and --rate say the same in two ways: give one of them")
    names, policies = sort_out(more or [], predictor or [], policy or [])
    check_ratio(context, policies)
    settings = SimulationSettings(
        requests=requests,
        draws=draws or 5,
        engine=(engine or Engines.CONTINUOUS).value,
        hardware=hardware,
        slice_tokens=slice_tokens,
        arrivals=tuple(part.strip() for part in arrivals.split(",")),
        loads=LOADS if load is None else parse_numbers(load, "--load"),
        rates=() if rate is None else parse_numbers(rate, "--rate"),
        burstiness=burstiness,
        sum_limit=sum_limit,
        ood_ratios=(None,) if ood_ratio is None else tuple(parse_ratios(ood_ratio)),
        prediction="hide" if prediction_time is PredictionTime.HIDE else "charge",
        ordering=OrderingSettings(
            max_overtake_s=max_overtake_s,
            prefill_weight=prefill_weight,
            quantile=quantile,
            preemption_ratio=preemption_ratio,
        ),
    )
    table = Table(data)
    rows = table.rows(limit=max_rows, seed=seed)
    if "trace" in settings.arrivals:
        check_recorded(rows)
    train = rows if train_data is None else Table(train_data).rows(limit=TRAIN_ROWS, seed=seed)
    loaded = load_all(names, train)
    seconds = {} if prediction_time is PredictionTime.NONE else time_predictions(loaded, rows)
    with steps("simulating") as on_progress:
        simulation = simulate(
            loaded,
            rows,
            policies,
            settings,
            seconds=seconds,
            seed=seed,
            on_progress=on_progress,
        )
    tell_simulation(
        simulation,
        table.fingerprint,
        name="simulate",
        seed=seed,
        out=out,
        force=force,
        as_json=as_json,
    )
