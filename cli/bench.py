"""`lengthpred bench`: orders compared end to end on a real vLLM."""

import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lengthpred.cli.console import steps
from lengthpred.cli.named import parse_ratios
from lengthpred.cli.simulate_inputs import load_all, parse_numbers, sort_out
from lengthpred.errors import SettingsError

if TYPE_CHECKING:
    from lengthpred.eval.simulate import Simulation

__all__ = ["measure_and_tell", "register"]

TRAIN_ROWS = 200_000
LOADS = (0.3, 1.2)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("bench")(bench_command)


def bench_command(
    context: typer.Context,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="-- MODEL [VLLM ARGUMENTS]", help="As for `vllm serve`."),
    ],
    data: Annotated[Path, typer.Option(help="The table that requests are drawn from.")],
    predictor: Annotated[
        list[str] | None,
        typer.Option(
            help="Artifact, or control by name, as of `simulate`. May be given again.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="sjf, gittins, slo, edf, prompt-sjf, random, longest-first, longest-prompt-first. "
            "May be given again; by default sjf (--offline: and longest-first).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for bench.json, bench.csv and report.html.", show_default=False),
    ] = None,
    train_data: Annotated[
        Path | None,
        typer.Option(help="The table that controls learn from; else --data.", show_default=False),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Fixed batches through LLM.generate, without a server."),
    ] = False,
    requests: Annotated[int, typer.Option(min=1, help="Requests of a run.")] = 200,
    draws: Annotated[int, typer.Option(min=1, help="Runs of each order, on other requests.")] = 5,
    arrivals: Annotated[
        str, typer.Option(help="burst (all at once), poisson, bursty.")
    ] = "burst,poisson",
    load: Annotated[
        str | None,
        typer.Option(
            help="Arrival rates, as shares of what the server takes; by default 0.3,1.2.",
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
    scale: Annotated[
        float, typer.Option(help="Answers are forced to recorded lengths times this.")
    ] = 1.0,
    max_prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Longer prompts are left out.")
    ] = 512,
    max_output_tokens: Annotated[int, typer.Option(min=1, help="Longer answers are cut.")] = 1024,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Of the model, where it does not lie with it.", show_default=False),
    ] = None,
    deadline_ms: Annotated[float, typer.Option(help="As of `serve`.")] = 25.0,
    hold_ms: Annotated[float, typer.Option(help="As of `serve`.")] = 0.0,
    scheduler: Annotated[bool, typer.Option("--scheduler", help="As of `serve`.")] = False,
    max_overtake_s: Annotated[float, typer.Option(help="As of `serve`.")] = 1800.0,
    prefill_weight: Annotated[float, typer.Option(help="As of `serve`.")] = 0.0,
    experiment: Annotated[
        str | None,
        typer.Option(
            help="sqlm-fig1: the published experiment on S-QLM, as fixed batches.",
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
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws.")] = 0,
    max_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Draw from a sample of so many rows.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace results in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print bench.json's content.")] = False,
) -> None:
    """Serve the same requests in several orders on a real vLLM, beside controls.

    Starts the server, sends real prompts with `vllm bench serve`, and forces each answer to its
    recorded length, which predictors do not see.
    """
    from lengthpred.cli.bench_inputs import (
        artifacts_of,
        asked_of,
        check_arguments,
        check_options,
        check_policies,
        notes_of,
    )
    from lengthpred.cli.report import tell_simulation
    from lengthpred.cli.sqlm_fig1 import Given, check_experiment, run_experiment
    from lengthpred.data.table import Table
    from lengthpred.data.tokens import load_counter
    from lengthpred.eval.bench.fig1 import run_on_engine
    from lengthpred.eval.bench.offline import bench_offline
    from lengthpred.eval.bench.online import Fleet, bench_server
    from lengthpred.eval.bench.requests import name_of_model, rows_to_send
    from lengthpred.eval.output import check_out
    from lengthpred.eval.replay.settings import OFFLINE, SERVER, SimulationSettings
    from lengthpred.eval.sqlm_fig1.setting import Fig1Settings
    from lengthpred.ordering import OrderingSettings
    from lengthpred.serving.vllm.launch import check_vllm

    check_options(context, experiment=experiment is not None, offline=offline)
    if load is not None and rate is not None:
        raise SettingsError("--load and --rate say the same in two ways: give one of them")
    if not scale > 0:
        raise SettingsError(f"--scale must be above 0, not {scale:g}")
    both = ["sjf", "longest-first"]
    names, policies = sort_out([], predictor or [], policy or (both if offline else both[:1]))
    check_policies(policies)
    check_arguments(arguments)
    settings = SimulationSettings(
        requests=requests,
        draws=draws,
        engine=OFFLINE if offline else SERVER,
        arrivals=("burst",) if offline else tuple(part.strip() for part in arrivals.split(",")),
        loads=LOADS if load is None else parse_numbers(load, "--load"),
        rates=() if rate is None else parse_numbers(rate, "--rate"),
        burstiness=burstiness,
        ood_ratios=(None,) if ood_ratio is None else tuple(parse_ratios(ood_ratio)),
        ordering=OrderingSettings(max_overtake_s=max_overtake_s, prefill_weight=prefill_weight),
    )
    if "trace" in settings.arrivals:
        raise SettingsError("recorded arrivals cannot be sent: choose burst, poisson or bursty")
    check_vllm()
    # A kill ends what is started here, too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    tokens = tokenizer or arguments[0]
    fit = partial(
        rows_to_send,
        counter=load_counter(tokens),
        max_prompt_tokens=max_prompt_tokens,
    )
    asked = asked_of(arguments)
    if experiment is not None:
        check_experiment(experiment)
        ratios = (0.0, 0.5, 0.8) if ood_ratio is None else tuple(parse_ratios(ood_ratio))
        run_experiment(
            Given(data, samples, hold_out, recipe, out, seed, force, as_json),
            Fig1Settings(ratios=ratios, engines=(OFFLINE,), requests=requests, draws=draws),
            name="bench",
            prepare=fit,
            runs=lambda folds, chosen, strata, tell, keep: run_on_engine(
                folds,
                chosen,
                asked,
                scale=scale,
                strata=strata,
                seed=seed,
                on_progress=tell,
                on_draw=keep,
            ),
        )
        return
    if out is not None:
        check_out(out, force=force, name="bench")
    table = Table(data)
    read = table.rows(limit=max_rows, seed=seed)
    model = name_of_model(read, "model")
    rows = fit(read, model=model, scale=scale, max_output_tokens=max_output_tokens)
    train = rows if train_data is None else Table(train_data).rows(limit=TRAIN_ROWS, seed=seed)
    loaded = load_all(names, train)
    ours = {
        "deadline-ms": deadline_ms,
        "hold-ms": hold_ms,
        "max-overtake-s": max_overtake_s,
        "prefill-weight": prefill_weight,
    }
    fleet = Fleet(
        artifacts=artifacts_of(names),
        predictors=loaded,
        arguments=[*asked, "--served-model-name", model],
        options=[
            *(f"--{name}={value}" for name, value in ours.items()),
            *["--scheduler"] * scheduler,
        ],
        model=model,
        tokenizer=tokens,
    )
    measure_and_tell(
        partial(bench_offline, loaded, rows, policies, settings, asked, seed=seed)
        if offline
        else partial(bench_server, fleet, rows, policies, settings, seed=seed),
        notes_of(read, rows, scale, arguments),
        draws,
        partial(
            tell_simulation,
            sha256=table.fingerprint,
            name="bench",
            seed=seed,
            out=out,
            force=force,
            as_json=as_json,
        ),
    )


def measure_and_tell(
    measure: Callable[..., "Simulation"],
    notes: Sequence[str],
    draws: int,
    tell: Callable[["Simulation"], None],
) -> None:
    """Tell what is measured, or what was measured until something or somebody ends it.

    measure: takes on_progress and on_draw. Raises what it raises, after the telling.
    """
    known: list[Simulation] = []
    try:
        with steps("measuring") as progress:
            measure(on_progress=progress, on_draw=known.append)
    finally:
        if known:
            last = known[-1]
            last.notes.extend(notes)
            if len(known) < draws:
                last.notes.append(
                    f"Ended after {len(known)} of {draws} draws, which are told here."
                )
            tell(last)
