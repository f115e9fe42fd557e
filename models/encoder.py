"""The encoder: a small transformer that reads the prompt, as an ONNX graph, and a head.

Trained in torch, run by ONNX Runtime: serving needs neither torch nor transformers.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from lengthpred.artifact import Contents, Storable
from lengthpred.base import Request
from lengthpred.distribution import LengthDistribution, LengthGrid
from lengthpred.errors import require
from lengthpred.models import text_features
from lengthpred.models.encoder_input import Reader
from lengthpred.models.onnx_file import names_other_files
from lengthpred.models.score_table import ScoreTable

__all__ = ["Encoder", "Readout", "model_numbers", "numbers"]

GPU_BATCH = 64
# What an int8 graph scales its activations by is the largest of a batch.
SCALED = b"DynamicQuantizeLinear"


@dataclass(frozen=True)
class Readout:
    """From what the graph says to distributions.

    grid         of the distributions
    head         "classes": the graph's outputs are logits, and class k means the distribution
                 `classes[k]`; "score": its one output is looked up in `table`
    prior        float32 (bins,), of requests without text
    temperature  the logits are divided by it (Guo et al., 2017)
    classes      float32 (k, bins); None where class k is bin k
    """

    grid: LengthGrid
    head: Literal["classes", "score"]
    prior: npt.NDArray[np.float32]
    temperature: float = 1.0
    classes: npt.NDArray[np.float32] | None = None
    table: ScoreTable | None = None

    @property
    def outputs(self) -> int:
        """How many numbers the graph has to say of a request."""
        if self.table is not None:
            return 1
        return self.grid.bins if self.classes is None else len(self.classes)

    def check(self) -> None:
        """Raise ValueError for what gives no distributions."""
        if (self.table is None) == (self.head == "score") or self.head not in ("classes", "score"):
            raise ValueError(f"a readout by '{self.head}' lacks what it needs, or has too much")
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"a temperature must be above 0, not {self.temperature}")
        rows = [self.prior[None]] + ([] if self.classes is None else [self.classes])
        LengthDistribution(self.grid, np.concatenate(rows))  # refuses what is none

    def __call__(self, outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """pmf (n, bins) of the graph's outputs (n, k)."""
        if self.table is not None:
            return self.table(outputs[:, 0].astype(np.float64)).pmf
        scaled = outputs.astype(np.float64) / self.temperature
        scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        pmf = scaled / scaled.sum(axis=1, keepdims=True)
        if self.classes is not None:
            pmf = pmf @ self.classes
        answer: npt.NDArray[np.float32] = (pmf / pmf.sum(axis=1, keepdims=True)).astype(np.float32)
        return answer


class Encoder(Storable):
    """A transformer in ONNX that reads the prompt and numbers about it; see `Readout`.

    graph    the ONNX file's bytes; inputs input_ids and attention_mask, int64 (n, t), numbers,
             float32 (n, features), and model, int64 (n,); output (n, k)
    reader   makes the token ids
    models   the target models that the graph knows: the first has number 1, others are 0
    readout  from the output to distributions
    device   "cuda" where ONNX Runtime has it, else "cpu"; None takes what there is

    A float32 graph runs in batches on CUDA. On a CPU, and in int8, each request is run by itself:
    batches would be padded, and an int8 graph scales its activations by the largest of a batch, so
    that answers would depend on the neighbours.
    Raises ValueError for a graph that cannot be run and a readout that is none, MissingExtraError
    without ONNX Runtime.
    """

    kind = "encoder"

    def __init__(
        self,
        graph: bytes,
        reader: Reader,
        models: Sequence[str],
        readout: Readout,
        device: Literal["cpu", "cuda"] | None = None,
    ) -> None:
        self.reader, self.models, self.readout = reader, list(models), readout
        self.graph = graph
        self._session, self.device = _session(graph, device)
        self._batches = self.device == "cuda" and SCALED not in graph
        readout.check()
        try:
            outputs = self.outputs([Request(prompt="a")])
        except Exception as error:  # of what the runtime raises, little is documented
            raise ValueError(f"the graph does not run: {error}") from error
        if outputs.ndim != 2 or outputs.shape[1] != readout.outputs or len(outputs) != 1:
            raise ValueError(f"the graph gives {outputs.shape[1:]} outputs, which do not fit")
        if not np.isfinite(outputs).all():
            raise ValueError("the graph gives numbers that are not finite")

    def predict(self, requests: Sequence[Request]) -> LengthDistribution:
        """See `lengthpred.Predictor`; a request without text gets the prior."""
        pmf = np.repeat(self.readout.prior[None], len(requests), axis=0)
        known = [i for i, request in enumerate(requests) if request.prompt]
        if known:
            pmf[known] = self.readout(self.outputs([requests[i] for i in known]))
        return LengthDistribution.trusted(self.readout.grid, pmf)

    def outputs(self, requests: Sequence[Request]) -> npt.NDArray[np.float32]:
        """What the graph says of each request, float32 (n, k)."""
        if not requests:
            return np.zeros((0, self.readout.outputs), np.float32)
        rows = self.reader.ids(requests)
        table, model = numbers(requests), model_numbers(requests, self.models)
        if self._batches:
            return self._batched(rows, table, model)

        def one(i: int) -> npt.NDArray[np.float32]:
            return self._run([rows[i]], table[i : i + 1], model[i : i + 1])

        if len(rows) == 1:
            return one(0)
        # The runtime lets go of the interpreter's lock; each request keeps one core busy.
        with ThreadPoolExecutor(_cores()) as pool:
            return np.concatenate(list(pool.map(one, range(len(rows)))))

    def _batched(
        self,
        rows: list[npt.NDArray[np.int64]],
        table: npt.NDArray[np.float32],
        model: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        """Those of like lengths together, since a batch is as wide as its longest."""
        order = np.argsort([len(row) for row in rows], kind="stable")
        parts = [order[start : start + GPU_BATCH] for start in range(0, len(order), GPU_BATCH)]
        done = [self._run([rows[i] for i in part], table[part], model[part]) for part in parts]
        return np.concatenate(done)[np.argsort(order)]

    def _run(
        self,
        rows: list[npt.NDArray[np.int64]],
        table: npt.NDArray[np.float32],
        model: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        ids, mask = self.reader.padded(rows)
        fed = {"input_ids": ids, "attention_mask": mask, "numbers": table, "model": model}
        answer: npt.NDArray[np.float32] = self._session.run(None, fed)[0]
        return answer

    def contents(self) -> Contents:
        """See `Storable`."""
        readout = self.readout
        arrays = {"prior": readout.prior}
        if readout.classes is not None:
            arrays["classes"] = readout.classes
        if readout.table is not None:
            arrays |= readout.table.arrays("table")
        return Contents(
            config={
                "head": readout.head,
                "temperature": readout.temperature,
                "models": self.models,
                "tokens": self.reader.tokens,
                "context_tokens": self.reader.context_tokens,
                "pad": self.reader.pad,
            },
            grid=self.readout.grid,
            arrays=arrays,
            files={"encoder.onnx": self.graph, "tokenizer.json": self.reader.tokenizer},
        )

    @classmethod
    def from_contents(cls, contents: Contents) -> Self:
        """See `Storable`."""
        config, arrays = contents.config, contents.arrays
        score = config["head"] == "score"
        readout = Readout(
            contents.grid,
            config["head"],
            arrays["prior"],
            float(config["temperature"]),
            arrays.get("classes"),
            ScoreTable.from_arrays(contents.grid, arrays, "table") if score else None,
        )
        reader = Reader(
            contents.files["tokenizer.json"],
            config["tokens"],
            config["context_tokens"],
            config["pad"],
        )
        return cls(contents.files["encoder.onnx"], reader, config["models"], readout)


def numbers(requests: Sequence[Request]) -> npt.NDArray[np.float32]:
    """What the head sees beside the text, float32 (n, features); see `text_features.NAMES`.

    What is unknown of a conversation that has not begun is 0: the number of replies tells it.
    """
    return np.nan_to_num(text_features.numeric(requests), nan=0.0, posinf=1e6, neginf=-1e6)


def model_numbers(requests: Sequence[Request], models: Sequence[str]) -> npt.NDArray[np.int64]:
    """The number of each request's target model, (n,): the first has 1, one that is not there 0."""
    number = {model: i for i, model in enumerate(models, 1)}
    return np.array([number.get(request.model, 0) for request in requests], np.int64)


def _session(graph: bytes, device: str | None) -> tuple[Any, Literal["cpu", "cuda"]]:
    """The graph in ONNX Runtime, and where it runs."""
    ort = require("onnxruntime", "onnx", "an encoder")
    if names_other_files(graph):
        raise ValueError("the graph keeps its weights in another file, which is not allowed")
    cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    if device == "cuda" and not cuda:
        raise ValueError("ONNX Runtime has no CUDA here: pip install 'lengthpred[gpu]'")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # One thread: a server has better use for the others, and requests run side by side.
    options.intra_op_num_threads = 1
    on_gpu = cuda and device != "cpu"
    providers = ["CUDAExecutionProvider"] * on_gpu + ["CPUExecutionProvider"]
    # On a CPU a layer norm that takes in the sum before it costs more than the two: its loop is
    # not vectorised. Without it a whole graph takes a seventh less.
    apart = [] if on_gpu else ["SkipLayerNormFusion"]
    try:
        session = ort.InferenceSession(
            graph, options, providers=providers, disabled_optimizers=apart
        )
    except Exception as error:  # of what the runtime raises, little is documented
        raise ValueError(f"the graph cannot be read: {error}") from error
    return session, "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"


def _cores() -> int:
    """The cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
