"""From torch to ONNX: the float32 graph, held against torch, and the int8 one, held against it."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.errors import LengthPredError, require

__all__ = ["INPUTS", "check_parity", "export", "quantise"]

INPUTS = ("input_ids", "attention_mask", "numbers", "model")
WHY = "exporting an encoder"
OPSET = 17
PARITY = 1e-3


def export(network: Any, features: int) -> bytes:
    """The ONNX file of a network, its batch and its tokens of any number."""
    torch = require("torch", "torch", WHY)
    require("onnx", "torch", WHY)
    ids = torch.ones((2, 12), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    sample = (ids, mask, torch.zeros(2, features), torch.zeros(2, dtype=torch.int64))
    free = {"input_ids": {0: "n", 1: "t"}, "attention_mask": {0: "n", 1: "t"}}
    free |= {"numbers": {0: "n"}, "model": {0: "n"}, "outputs": {0: "n"}}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder, "encoder.onnx")
        with torch.no_grad():
            torch.onnx.export(
                network.eval(),
                sample,
                str(path),
                input_names=list(INPUTS),
                output_names=["outputs"],
                dynamic_axes=free,
                opset_version=OPSET,
                # The newer exporter takes ten times as long and one more package.
                dynamo=False,
            )
        return path.read_bytes()


def quantise(graph: bytes) -> bytes:
    """The same graph with weights of eight bits; activations are scaled as they come."""
    tool = require("onnxruntime.quantization", "torch", WHY)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        before.write_bytes(graph)
        tool.quantize_dynamic(
            before,
            after,
            weight_type=tool.QuantType.QInt8,
            per_channel=True,
            # The head is a thousandth of the work, and its rounding is not averaged out.
            nodes_to_exclude=[name for name in _nodes(graph) if name.startswith("/head")],
        )
        return after.read_bytes()


def check_parity(
    network: Any,
    outputs: Callable[[], npt.NDArray[np.float32]],
    rows: dict[str, npt.NDArray[Any]],
) -> float:
    """The largest difference between torch's outputs and the graph's; rows as of INPUTS.

    Raises LengthPredError above 1e-3.
    """
    torch = require("torch", "torch", WHY)
    with torch.no_grad():
        wanted = network(*(torch.from_numpy(rows[name]) for name in INPUTS)).numpy()
    apart = float(np.abs(wanted - outputs()).max())
    if not apart <= PARITY:
        raise LengthPredError(
            f"the exported graph differs from the trained network by {apart:.2g}, more than "
            f"{PARITY:g}: this transformer cannot be exported faithfully with this torch"
        )
    return apart


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of each comparison of shapes, and the quantiser of what it was not asked.

    That the graphs are right is checked on their answers.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)


def _nodes(graph: bytes) -> list[str]:
    onnx = require("onnx", "torch", WHY)
    return [node.name for node in onnx.load_from_string(graph).graph.node]
