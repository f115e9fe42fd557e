"""How long an engine's step takes."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from lengthpred.base import FloatArray
from lengthpred.errors import DataError, SettingsError, require

__all__ = ["PRESET", "StepTime"]


@dataclass(frozen=True)
class StepTime:
    """A step takes a fixed time, and more for each prompt token and each KV token in use.

    fixed_s          seconds of any step
    prefill_token_s  seconds for each token of a prompt that the step computes
    kv_token_s       seconds for each token in the KV cache that the step reads
    """

    fixed_s: float
    prefill_token_s: float
    kv_token_s: float

    def __post_init__(self) -> None:
        parts = (self.fixed_s, self.prefill_token_s, self.kv_token_s)
        if not all(math.isfinite(part) and part >= 0 for part in parts) or self.fixed_s <= 0:
            raise SettingsError(f"step times must be 0 or more, the fixed one above 0, not {parts}")

    def __str__(self) -> str:
        return (
            f"{1e3 * self.fixed_s:.3g} ms + {1e3 * self.prefill_token_s:.3g} ms a prompt token + "
            f"{1e6 * self.kv_token_s:.3g} µs a KV token"
        )

    def of(self, kv_tokens: npt.ArrayLike, prefill_tokens: npt.ArrayLike = 0) -> FloatArray:
        """Seconds of steps with so many tokens in the cache and so many of prompts computed."""
        prompts = np.asarray(prefill_tokens) * self.prefill_token_s
        seconds: FloatArray = self.fixed_s + prompts + np.asarray(kv_tokens) * self.kv_token_s
        return seconds

    @classmethod
    def fit(
        cls, seconds: npt.ArrayLike, prefill_tokens: npt.ArrayLike, kv_tokens: npt.ArrayLike
    ) -> Self:
        """From measured steps, each (n,), by least squares with no part below zero.

        Each step counts by its relative error, so that long steps do not drown short ones. Raises
        DataError for fewer than three steps or for times that are not above zero.
        """
        optimise = require("scipy.optimize", "train", "Fitting step times")
        taken = np.asarray(seconds, np.float64)
        columns = [np.ones(len(taken)), np.asarray(prefill_tokens), np.asarray(kv_tokens)]
        if len(taken) < 3 or not (taken > 0).all():
            raise DataError("step times are fitted from three or more steps of more than 0 seconds")
        scale = np.array([1.0, 1e-3, 1e-6])  # numbers of one size for the solver
        design = np.column_stack(columns) * scale / taken[:, None]
        found, _ = optimise.nnls(design, np.ones(len(taken)))
        fixed, prefill, kv = (float(part) for part in found * scale)
        return cls(max(fixed, 1e-9), prefill, kv)


PRESET = StepTime(0.018, 0.08e-3, 0.15e-6)
"""A 7B model on two L40S, by roofline and not measured."""
