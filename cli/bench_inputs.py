"""What `lengthpred bench` is given: predictors, policies, vLLM's arguments."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lengthpred.cli.named import is_control, labels
from lengthpred.cli.options import refuse_unused
from lengthpred.errors import SettingsError, did_you_mean

if TYPE_CHECKING:
    from typer import Context

    from lengthpred.data.table import Rows

__all__ = [
    "artifacts_of",
    "asked_of",
    "check_arguments",
    "check_options",
    "check_policies",
    "notes_of",
]

CACHING, NO_CACHING = "--enable-prefix-caching", "--no-enable-prefix-caching"
# Options that one kind of run looks at alone.
EXPERIMENTS_OWN = ("samples", "hold_out", "recipe")
SERVERS_OWN = ("arrivals", "load", "rate", "burstiness", "deadline_ms", "hold_ms", "scheduler")
COMPARISONS_OWN = (
    *("predictor", "policy", "train_data", "max_output_tokens", "max_rows"),
    *("max_overtake_s", "prefill_weight"),
)


def check_options(context: "Context", *, experiment: bool, offline: bool) -> None:
    """Raise SettingsError for an option that would have no effect."""
    if experiment:
        why = "the experiment sets that itself"
        refuse_unused(context, {*SERVERS_OWN, *COMPARISONS_OWN}, why)
        return
    refuse_unused(context, EXPERIMENTS_OWN, "it needs --experiment")
    if offline:
        refuse_unused(context, SERVERS_OWN, "--offline runs fixed batches without a server")


def check_policies(policies: Sequence[str]) -> None:
    """Raise SettingsError for a policy that gives a call no key at its arrival."""
    from lengthpred.serving.settings import Policy

    for policy in policies:
        if policy not in get_args(Policy):
            raise SettingsError(
                f"'{policy}' is no policy of a server. {did_you_mean(policy, get_args(Policy))}"
            )


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise SettingsError for an argument of vLLM's that is chosen here, or no model."""
    from lengthpred.eval.bench.server import ADDRESS, check_free

    if not arguments or arguments[0].startswith("-"):
        raise SettingsError("name the model: lengthpred bench --data T -- MODEL [vllm arguments]")
    check_free(arguments, (*ADDRESS, "--served-model-name", "--api-key"))


def asked_of(arguments: Sequence[str]) -> list[str]:
    """vLLM's arguments; without a prefix cache unless one is asked for.

    What was computed for one order must not help the next.
    """
    chosen = {CACHING, NO_CACHING} & {one.replace("_", "-") for one in arguments}
    return [*arguments] if chosen else [*arguments, NO_CACHING]


def artifacts_of(names: Sequence[str]) -> dict[str, str]:
    """What a server loads, by label: what is named and is no control."""
    return {
        label: str(Path(name).absolute()) if Path(name).exists() else name
        for label, name in labels(list(names)).items()
        if not is_control(name)
    }


def notes_of(read: "Rows", rows: "Rows", scale: float, arguments: Sequence[str]) -> list[str]:
    """What a reader has to know of the requests."""
    notes = [f"vLLM was given: {' '.join(arguments)}."]
    if len(rows) < len(read):
        notes.append(
            f"Of {len(read):,} rows {len(rows):,} have a short prompt of their own, without a "
            "conversation before it: only these are sent."
        )
    if scale != 1:
        notes.append(
            f"Answers are {scale:g} times as long as recorded; predictors predict the recorded "
            "lengths, which is the same order."
        )
    return notes
