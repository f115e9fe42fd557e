"""Makes the encoder: a pretrained transformer, fine-tuned to lengths, exported and calibrated."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray, IntArray, Request
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.errors import DataError, require
from lengthpred.metrics import tau
from lengthpred.models.encoder import Encoder, Readout, model_numbers, numbers
from lengthpred.models.encoder_input import Reader
from lengthpred.models.score_table import ScoreTable
from lengthpred.survival import marginal
from lengthpred.training.calibration import fit_score_table
from lengthpred.training.encoder_loop import Examples, Loop
from lengthpred.training.encoder_network import WHY, build, pretrained
from lengthpred.training.encoder_session import Reading, Session
from lengthpred.training.encoder_targets import class_bins, class_lengths, first_answer, targets
from lengthpred.training.export import INPUTS, check_parity, export, quantise
from lengthpred.training.progress import OnProgress, silent
from lengthpred.training.settings import EncoderSettings

__all__ = ["fit_readout", "train"]

MIN_ROWS = 50
VALID_SHARE, VALID_ROWS = 0.08, 3000
CALIBRATION_ROWS = 5000
CHECKED_ROWS = 600
INT8_LOSS = 0.01


def train(
    rows: Rows,
    calibration: Rows,
    settings: EncoderSettings,
    rng: np.random.Generator,
    on_progress: OnProgress = silent,
    checkpoint: Path | None = None,
    session: Session | None = None,
) -> Encoder:
    """Fine-tune on `rows`, a seeded part of which tells when to stop; calibrate on `calibration`.

    checkpoint: a file that a killed run goes on from. session: a limit on the time, and what other
    encoders have read already. Under `accelerate launch` all processes but the first end here.
    Raises DataError when there is too little to learn from, SettingsError for a transformer that
    cannot be had.
    """
    # What the last step needs, too: hours lie between.
    torch = require("torch", "train,torch", WHY)
    for module in ("transformers", "accelerate", "onnx", "onnxruntime", "scipy", "sklearn"):
        require(module, "train,torch", WHY)
    session = session or Session(Reading())
    rows = _with_text(rows, "train")
    calibration = _with_text(calibration, "calibrate")
    picked = _valid(rows, rng)
    on_progress("loading the encoder", 0, 0)
    found = pretrained(settings)
    reader = Reader(found.tokenizer, settings.tokens, settings.context_tokens, found.pad)
    models = sorted({request.model for request in rows.requests} - {""})
    classes = class_bins(rows, settings)
    seed = int(rng.integers(2**31))
    on_progress("splitting prompts into tokens", 0, 0)
    examples = [
        _examples(rows.take(part), reader, models, settings, classes, session.reading)
        for part in (~picked, picked)
    ]
    torch.manual_seed(seed)
    network = build(found, settings, *_beginning(examples[0], settings), len(models))
    loop = Loop(network, settings, reader, seed, on_progress, checkpoint, session)
    if not loop.run(*examples):
        raise SystemExit(0)
    prior = marginal(LengthGrid(), rows.lengths, rows.censored, rows.weights).astype(np.float32)
    meaning = class_lengths(rows, classes) if settings.head == "classes" else None
    plain = _uncalibrated(settings, prior, meaning)
    held = calibration.sample(CALIBRATION_ROWS, rng)
    on_progress("exporting the encoder", 0, 0)
    served = _exported(network, settings, reader, models, plain, held, rng)
    on_progress("calibrating the encoder", 0, 0)
    readout = fit_readout(served.outputs(held.requests), held, plain)
    return Encoder(served.graph, reader, models, readout)


def fit_readout(outputs: npt.NDArray[np.float32], rows: Rows, plain: Readout) -> Readout:
    """`plain`, calibrated on a graph's outputs (n, k) on rows that it did not see.

    Logits get the temperature of the highest likelihood (Guo et al., arXiv:1706.04599); scores get
    a table.
    """
    if plain.head == "classes":
        return replace(plain, temperature=_temperature(plain, outputs, rows))
    scores = outputs[:, 0].astype(np.float64)[rows.owner]
    table = fit_score_table(plain.grid, scores, rows.lengths, rows.censored, rows.weights)
    return replace(plain, table=table)


def _temperature(plain: Readout, outputs: npt.NDArray[np.float32], rows: Rows) -> float:
    optimise = require("scipy.optimize", "train", WHY)
    place = rows.owner, plain.grid.index(rows.lengths)

    def surprise(log: float) -> float:
        pmf = replace(plain, temperature=float(np.exp(log)))(outputs).astype(np.float64)
        beyond = pmf[:, ::-1].cumsum(axis=1)[:, ::-1]
        likely = np.where(rows.censored, beyond[place], pmf[place])
        return float(-(rows.weights * np.log(np.maximum(likely, 1e-9))).sum())

    best = optimise.minimize_scalar(surprise, bounds=(-1.5, 1.5), method="bounded")
    return float(np.exp(best.x))


def _with_text(rows: Rows, use: str) -> Rows:
    """Those with a prompt; raises DataError when they are too few to `use` them."""
    rows = rows.with_prompt()
    if len(rows) < MIN_ROWS:
        raise DataError(
            f"an encoder needs {MIN_ROWS} rows with a prompt to {use} on; there are {len(rows)}: "
            "give a larger table"
        )
    return rows


def _valid(rows: Rows, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which rows tell when to stop, (n,): whole groups, as far as they leave most rows to learn.

    Where the groups are too large for that, single rows.
    """
    most = max(1, round(min(VALID_SHARE * len(rows), VALID_ROWS)))
    groups, number, sizes = np.unique(rows.groups, return_inverse=True, return_counts=True)
    picked, taken = np.zeros(len(groups), bool), 0
    for group in rng.permutation(len(groups)):
        if taken + sizes[group] <= most:
            picked[group], taken = True, taken + sizes[group]
    if taken:
        found: npt.NDArray[np.bool_] = picked[number]
        return found
    single = np.zeros(len(rows), bool)
    single[rng.choice(len(rows), most, replace=False)] = True
    return single


def _beginning(
    examples: Examples, settings: EncoderSettings
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and spread of the numbers, (2, features), and the first answer, (outputs,)."""
    table = examples.numbers
    scale = np.array([table.mean(axis=0), np.maximum(table.std(axis=0), 1e-2)], np.float32)
    return scale, first_answer(examples.targets, settings)


def _examples(
    rows: Rows,
    reader: Reader,
    models: Sequence[str],
    settings: EncoderSettings,
    classes: IntArray,
    reading: Reading,
) -> Examples:
    return Examples(
        reading.ids(reader, rows.requests),
        reading.numbers(rows.requests),
        model_numbers(rows.requests, models),
        targets(rows, settings, classes),
    )


def _uncalibrated(
    settings: EncoderSettings,
    prior: npt.NDArray[np.float32],
    meaning: npt.NDArray[np.float32] | None,
) -> Readout:
    grid = LengthGrid()
    if settings.head in ("distribution", "classes"):
        return Readout(grid, "classes", prior, 1.0, meaning)
    return Readout(grid, "score", prior, table=ScoreTable.flat(grid, prior))


def _exported(
    network: Any,
    settings: EncoderSettings,
    reader: Reader,
    models: Sequence[str],
    readout: Readout,
    held: Rows,
    rng: np.random.Generator,
) -> Encoder:
    """The graph that is served, checked on held rows on the CPU, which every machine has."""
    features = numbers(held.requests[:1]).shape[1]
    exact = Encoder(export(network, features), reader, models, readout, "cpu")
    _check(network, exact, held.requests[:64])
    if not settings.int8:
        return exact
    small = Encoder(quantise(exact.graph), reader, models, readout, "cpu")
    return _faithful(exact, small, held.sample(CHECKED_ROWS, rng))


def _check(network: Any, exact: Encoder, requests: Sequence[Request]) -> None:
    """Hold the graph against torch, on a batch of requests of unlike lengths."""
    rows = exact.reader.ids(requests)
    ids, mask = exact.reader.padded(rows)
    model = model_numbers(requests, exact.models)
    fed: dict[str, npt.NDArray[Any]] = dict(
        zip(INPUTS, (ids, mask, numbers(requests), model), strict=True)
    )
    check_parity(network, lambda: exact.outputs(requests), fed)


def _faithful(exact: Encoder, quantised: Encoder, rows: Rows) -> Encoder:
    """The quantised one, unless it orders requests worse; then a warning says so."""
    known = rows.take(~rows.truth_censored)
    if not len(known):
        return quantised
    taus = [tau(_order(encoder, known.requests), known.truth) for encoder in (exact, quantised)]
    if taus[0] - taus[1] <= INT8_LOSS:
        return quantised
    warnings.warn(
        f"eight bits cost {taus[0] - taus[1]:.3f} of tau ({taus[0]:.3f} before), more than "
        f"{INT8_LOSS}: the graph stays in float32",
        stacklevel=2,
    )
    return exact


def _order(encoder: Encoder, requests: Sequence[Request]) -> FloatArray:
    """What the encoder orders requests by, (n,)."""
    outputs = encoder.outputs(requests)
    if outputs.shape[1] == 1:
        return outputs[:, 0].astype(np.float64)
    found: FloatArray = LengthDistribution(LengthGrid(), encoder.readout(outputs)).median()
    return found
