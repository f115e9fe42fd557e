"""Predict how long a language model's answer will be, before it runs."""

from lengthpred.artifact import load
from lengthpred.base import Detector, Observer, Predictor, Refiner, Request
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.errors import LengthPredError
from lengthpred.ordering import prioritize

__all__ = [
    "Detector",
    "LengthDistribution",
    "LengthGrid",
    "LengthPredError",
    "Observer",
    "Predictor",
    "Refiner",
    "Request",
    "__version__",
    "load",
    "prioritize",
]


def __getattr__(name: str) -> str:
    # Asked for lazily: importlib.metadata would cost an import of lengthpred a tenth of its time.
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("lengthpred")
        except PackageNotFoundError:  # a bare checkout
            return "0.0.0"
    raise AttributeError(f"module 'lengthpred' has no attribute '{name}'")
