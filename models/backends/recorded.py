"""Recorded samples in place of a model: for experiments, and for what was labelled before."""

import os
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lengthpred.base import IntArray, Request
from lengthpred.errors import BackendError, DataError, require
from lengthpred.manifest import file_sha256
from lengthpred.models.backends.base import Source

__all__ = ["RecordedBackend"]

Samples = tuple[IntArray, npt.NDArray[np.bool_], str]
"""Lengths and whether they were stopped, (k,), and the prompt that they are of."""


class RecordedBackend:
    """Answers with the lengths in a table's rows of the same `id`; rows of one prompt add up.

    Of k samples of a row it takes those numbered seed, seed + 1, ... modulo k, n of them; seeds are
    thus a way to average over samples. A row with fewer than n samples repeats none: what is
    missing is 0 and censored, as is everything of a request whose id is not in the table, or is
    there with another prompt (two tables that number their rows share ids by chance). A longer
    sample than the cap is censored there. Temperature and deadline are not looked at.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._lock = threading.Lock()
        self._samples: dict[str, Samples] | None = None

    def generate_lengths(
        self,
        requests: Sequence[Request],
        n: int,
        temperature: float,
        cap: int,
        deadline_s: float | None,
        seed: int,
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """See `lengthpred.models.backends.base.Backend`."""
        samples = self._open()
        lengths, censored = (
            np.zeros((len(requests), n), np.int64),
            np.ones((len(requests), n), bool),
        )
        for row, request in enumerate(requests):
            found = samples.get(request.id)
            if found is not None and request.prompt == found[2]:
                count = min(n, len(found[0]))
                picked = (seed + np.arange(count)) % len(found[0])
                lengths[row, :count], censored[row, :count] = found[0][picked], found[1][picked]
        return np.minimum(lengths, cap), censored | (lengths > cap)

    def checksum(self) -> str:
        """See `lengthpred.models.backends.base.Backend`."""
        try:
            # A device would be read for ever.
            if not os.path.isfile(self.source.samples) and os.path.exists(self.source.samples):
                raise BackendError(f"{self.source.samples} is no file, and so no table of samples")
            return file_sha256(self.source.samples)
        except OSError as error:
            raise BackendError(
                f"the table of samples {self.source.samples} cannot be read: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Forget the table."""
        with self._lock:
            self._samples = None

    def _open(self) -> dict[str, Samples]:
        with self._lock:
            if self._samples is None:
                if self.source.checksum and self.checksum() != self.source.checksum:
                    raise BackendError(
                        f"{self.source.samples} is not the table of samples that this predictor "
                        "was trained with: put that one back, or train again"
                    )
                self._samples = self._read()
            return self._samples

    def _read(self) -> dict[str, Samples]:
        table = require("lengthpred.data.table", "train", "Reading recorded samples")
        try:
            rows = table.Table(self.source.samples).rows()
        except DataError as error:
            raise BackendError(str(error)) from error
        wanted = self.source.model
        models = {request.model for request in rows.requests}
        if wanted and wanted not in models:
            raise BackendError(f"{self.source.samples} has no rows of the model '{wanted}'")
        if not wanted and len(models) > 1:
            raise BackendError(
                f"{self.source.samples} has samples of {len(models)} models: name one of them "
                f"as 'model' ({', '.join(sorted(models))})"
            )
        ends = np.searchsorted(rows.owner, np.arange(len(rows) + 1))
        places: dict[str, list[int]] = {}
        for row, request in enumerate(rows.requests):
            if not wanted or request.model == wanted:
                places.setdefault(request.id, []).append(row)
        for name, same in places.items():
            if not name or len({rows.requests[row].prompt for row in same}) > 1:
                what = f"two prompts with the id '{name}'" if name else "rows without an id"
                raise BackendError(
                    f"{self.source.samples} has {what}: samples are found by id, so each prompt "
                    "needs its own"
                )
        spans = {
            name: np.concatenate([np.arange(ends[row], ends[row + 1]) for row in same])
            for name, same in places.items()
        }
        return {
            name: (rows.lengths[span], rows.censored[span], rows.requests[places[name][0]].prompt)
            for name, span in spans.items()
        }
