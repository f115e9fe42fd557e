"""What `lengthpred simulate` is given: names, numbers, predictors, step times."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from lengthpred.cli.named import is_control, labels, load_named
from lengthpred.cli.options import is_given, refuse_unused
from lengthpred.errors import ArtifactError, DataError, SettingsError

if TYPE_CHECKING:
    from typer import Context

    from lengthpred.base import Predictor
    from lengthpred.data.table import Rows
    from lengthpred.eval.replay.step_time import StepTime

__all__ = [
    "check_options",
    "check_ratio",
    "fit_step_times",
    "load_all",
    "parse_numbers",
    "sort_out",
    "time_predictions",
]


# What only an experiment looks at, and what it and other simulations both do.
EXPERIMENTS_OWN = ("samples", "hold_out", "recipe", "slm_seconds")
IN_BOTH = (
    *("data", "out", "seed", "force", "as_json", "experiment", "requests", "draws", "engine"),
    *("ood_ratio", "sum_limit", "slots", "token_budget", "kv_tokens", "watermark", "step_times"),
)


def check_options(context: "Context", experiment: bool) -> None:
    """Raise SettingsError for an option that would have no effect."""
    if experiment:
        others = set(context.params) - {*EXPERIMENTS_OWN, *IN_BOTH}
        refuse_unused(context, others, "the experiment sets that itself")
    else:
        refuse_unused(context, EXPERIMENTS_OWN, "it needs --experiment")


def check_ratio(context: "Context", policies: list[str]) -> None:
    """Raise SettingsError for a preemption ratio where no policy looks at it."""
    if is_given(context, "preemption_ratio") and "srpt" not in policies:
        raise SettingsError(
            f"--preemption-ratio is for the policy srpt, not for {', '.join(policies)}: leave it "
            "out, or add --policy srpt"
        )


def sort_out(
    more: list[str], predictors: list[str], policies: list[str]
) -> tuple[list[str], list[str]]:
    """Which names are predictors, and which are policies."""
    from lengthpred.ordering import POLICIES

    policies = [part.strip() for name in policies for part in name.split(",")]
    policies += [name for name in more if name in POLICIES]
    predictors = [*predictors, *(name for name in more if name not in POLICIES)]
    return predictors, policies or ["sjf"]


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(
            f"{option} has '{text}': give numbers with commas between, such as 0.8,1.2"
        ) from None


def load_all(names: list[str], train: "Rows") -> "dict[str, Predictor | None]":
    """Predictors by label; None for controls that know the truth of what is drawn."""
    from lengthpred.eval.controls import KNOWING, fit_control

    found: dict[str, Predictor | None] = {}
    for label, name in labels(names).items():
        if is_control(name):
            found[label] = None if name in KNOWING else fit_control(name, train)
            continue
        one = load_named(name)
        if not hasattr(one, "predict"):
            raise ArtifactError(f"{name} holds a detector, which orders nothing: give a predictor")
        found[label] = cast("Predictor", one)
    return found


def time_predictions(loaded: "dict[str, Predictor | None]", rows: "Rows") -> dict[str, float]:
    """What one prediction of each takes, measured in a process of its own."""
    from lengthpred.eval.cost import measure_best

    return {
        label: measure_best(label, one, rows.requests)["us_per_request_p50"][0] / 1e6
        for label, one in loaded.items()
        if one is not None
    }


def fit_step_times(path: Path) -> "StepTime":
    """Step times fitted to measured steps; raises DataError, naming the file, for what is none."""
    from pyarrow import ArrowException, csv

    from lengthpred.eval.replay.step_time import StepTime

    columns = ("seconds", "prefill_tokens", "kv_tokens")
    try:
        found = csv.read_csv(path)
        return StepTime.fit(*(found.column(name).to_numpy().astype(float) for name in columns))
    except (ArrowException, KeyError, ValueError, OSError) as error:
        raise DataError(
            f"{path} has no measured steps: it must be a CSV with the columns "
            f"{', '.join(columns)} ({error})"
        ) from error
