"""What a server tells Prometheus of its predictions, beside its own metrics."""

import threading
from collections import deque
from collections.abc import Sequence
from math import nan
from typing import TYPE_CHECKING

import numpy as np

from lengthpred.distribution import LengthDistribution
from lengthpred.errors import require
from lengthpred.metrics import tau

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["ServingMetrics"]

WINDOW = 1000  # true lengths that accuracy is measured on
EVERY = 50  # true lengths after which it is measured again
SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
INTERVAL = (0.1, 0.9)
PLACES = ("predicted", "prior", "late", "unread", "unordered")
FAILURES = ("prior", "late")


class ServingMetrics:
    """Counters of a server process; the names are in docs/vllm.md, docs/grafana.json shows them.

    Of several server processes, counters are added up, and so are calls whose length is not known
    yet. What predictions are worth has one value a process, by `pid`: of the most recent process
    alone, one whose predictor failed would hide behind the others, and one that has measured
    nothing yet would hide them.

    registry: for tests; else Prometheus' own, which vLLM serves, over all its processes. Raises
    MissingExtraError without prometheus-client.
    """

    def __init__(self, registry: "CollectorRegistry | None" = None) -> None:
        client = require("prometheus_client", "serve", "Counting what a server predicts")
        self.registry = registry or client.REGISTRY
        given = {"registry": self.registry}

        def counter(name: str, help: str, **values: Sequence[str]) -> "client.Counter":  # type: ignore[name-defined]
            made = client.Counter(f"lengthpred_{name}", help, tuple(values), **given)
            # There from the start, as a rate does not see the step from nothing to the first.
            for label, known in values.items():
                for value in known:
                    made.labels(**{label: value})
            return made

        def gauge(name: str, help: str, mode: str = "liveall") -> "client.Gauge":  # type: ignore[name-defined]
            return client.Gauge(f"lengthpred_{name}", help, multiprocess_mode=mode, **given)

        self.calls = counter(
            "calls", "Calls by how they got their place in the queue", place=PLACES
        )
        self.errors = counter("errors", "Predictions that failed, by why", why=FAILURES)
        self.unsure = counter("unsure", "Calls that the predictor was unsure of")
        self.seconds = client.Histogram(
            "lengthpred_prediction_seconds", "Time of a prediction", buckets=SECONDS, **given
        )
        self.refined = counter(
            "refined", "Second opinions by what became of them", result=("refined", "let go")
        )
        self.hidden = counter(
            "hidden_seconds", "Time that calls were held for a second opinion while others waited"
        )
        self.restarts = counter("restarts", "Of the predictor's process")
        self.forgotten = counter("forgotten", "Calls forgotten before their length was known")
        self.lengths = counter(
            "true_lengths", "True lengths by whether a call is known", result=("known", "unknown")
        )
        self.pending = gauge("pending", "Calls whose length is not known yet", "livesum")
        self.tau = gauge("tau", f"Kendall's tau of the last {WINDOW} lengths and their medians")
        self.coverage = gauge("coverage_80", f"Share of the last {WINDOW} inside the 80 % interval")
        self.error = gauge("mean_absolute_error", f"Of the medians of the last {WINDOW}, in tokens")
        for one in (self.tau, self.coverage, self.error):
            one.set(nan)  # until there is something to measure
        self._lock = threading.Lock()
        self._seen: deque[tuple[float, float, float, float]] = deque(maxlen=WINDOW)
        self._new = 0

    def observe(
        self, dists: Sequence[LengthDistribution], lengths: Sequence[int], stopped: Sequence[bool]
    ) -> None:
        """Take in true lengths and what was predicted of each; measure anew now and then.

        Answers that a limit stopped are left out: their natural length is not known.
        """
        kept = [(d, n) for d, n, cut in zip(dists, lengths, stopped, strict=True) if not cut]
        if not kept:
            return
        all_of = LengthDistribution.concat([dist for dist, _ in kept])
        low, high = all_of.quantile(INTERVAL).T
        with self._lock:
            medians = all_of.median()
            for row, (_, length) in enumerate(kept):
                self._seen.append((float(length), medians[row], low[row], high[row]))
            self._new += len(kept)
            if self._new < EVERY:
                return
            self._new = 0
            seen = np.array(self._seen)
        true, median, least, most = seen.T
        self.tau.set(tau(median, true))
        self.coverage.set(float(((least <= true) & (true <= most)).mean()))
        self.error.set(float(np.abs(median - true).mean()))
