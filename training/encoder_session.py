"""What several encoders that are trained in one run share, and when one has to end."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lengthpred.base import Request
from lengthpred.manifest import sha256
from lengthpred.models.encoder import numbers
from lengthpred.models.encoder_input import Reader

__all__ = ["Reading", "Session"]

Ids = npt.NDArray[np.int64]


@dataclass
class Reading:
    """Token ids and numbers of requests, each made once: encoders that read alike share them."""

    _ids: dict[tuple[str, int, int], dict[Request, Ids]] = field(default_factory=dict)
    _numbers: dict[Request, npt.NDArray[np.float32]] = field(default_factory=dict)

    def ids(self, reader: Reader, requests: Sequence[Request]) -> list[Ids]:
        """As `reader.ids`."""
        key = sha256(reader.tokenizer), reader.tokens, reader.context_tokens
        known = self._ids.setdefault(key, {})
        missing = list(dict.fromkeys(r for r in requests if r not in known))
        known.update(zip(missing, reader.ids(missing), strict=True))
        return [known[request] for request in requests]

    def numbers(self, requests: Sequence[Request]) -> npt.NDArray[np.float32]:
        """As `lengthpred.models.encoder.numbers`, float32 (n, features)."""
        missing = list(dict.fromkeys(r for r in requests if r not in self._numbers))
        self._numbers.update(zip(missing, numbers(missing), strict=True))
        return np.stack([self._numbers[request] for request in requests])


@dataclass
class Session:
    """One encoder's part of a run.

    reading  what the run's encoders have read already
    until    when training has to end, on `time.monotonic`; None for no limit; may be set while
             it runs
    cut      set by the training: whether it ended there, before it was done
    """

    reading: Reading
    until: float | None = None
    cut: bool = False
