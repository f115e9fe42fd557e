"""A tokenizer and ONNX graphs of a few kilobytes, made without torch; and a tiny torch one."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from lengthpred.base import FloatArray
from lengthpred.data.table import Rows
from lengthpred.distribution import LengthGrid
from lengthpred.models.encoder import Encoder, Readout
from lengthpred.models.encoder_input import Reader
from lengthpred.models.text_features import NAMES
from lengthpred.survival import marginal

__all__ = ["INPUTS", "graph", "reader", "small_encoder", "tokenizer", "torch_encoder"]

INPUTS = ("input_ids", "attention_mask", "numbers", "model")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = (
    "list poem sum code translate of rivers glass engine sort tax harbour proof snow bread 42 "
    "light seven a b c d e"
).split()


@cache
def tokenizer() -> bytes:
    """A word-level tokenizer that writes [CLS] words [SEP]."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    text: str = made.to_str()
    return json.dumps(json.loads(text), sort_keys=True).encode()


def reader(tokens: int = 32, context_tokens: int = 0) -> Reader:
    """Of the tokenizer above."""
    return Reader(tokenizer(), tokens, context_tokens)


def graph(weights: FloatArray, bias: FloatArray, models: int = 3) -> bytes:
    """The mean of weights (words, k) over the tokens that are there, plus bias (k,).

    The numbers and the target model move no output, but the graph reads them.
    """
    outputs = weights.shape[1]
    unmoved = np.zeros((len(NAMES), outputs), np.float32)
    tensors = {
        "weights": weights.astype(np.float32),
        "bias": bias.astype(np.float32),
        "unmoved": unmoved,
        "levels": np.zeros((models, outputs), np.float32),
        "last": np.array([2]),
        "middle": np.array([1]),
    }
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["there"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["there", "last"], ["there3"]),
        helper.make_node("Mul", ["each", "there3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["there", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("MatMul", ["numbers", "unmoved"], ["beside"]),
        helper.make_node("Gather", ["levels", "model"], ["level"]),
        helper.make_node("Add", ["mean", "bias"], ["biased"]),
        helper.make_node("Add", ["biased", "beside"], ["numbered"]),
        helper.make_node("Add", ["numbered", "level"], ["outputs"]),
    ]
    fed = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["n", "t"]),
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["n", len(NAMES)]),
        helper.make_tensor_value_info("model", TensorProto.INT64, ["n"]),
    ]
    given = [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", outputs])]
    stored = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    made = helper.make_model(
        helper.make_graph(nodes, "encoder", fed, given, stored),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data


def small_encoder(rows: Rows, held: Rows) -> Encoder:
    """One that knows each word's lengths: the mean log frequency of bins where it was seen."""
    grid = LengthGrid()
    prior = marginal(grid, rows.lengths, rows.censored, rows.weights)
    read = reader()
    logs = np.zeros((read.vocabulary, grid.bins))
    ids = read.ids(rows.requests)
    for word in range(read.vocabulary):
        seen = np.isin(rows.owner, [i for i, row in enumerate(ids) if word in row])
        part = marginal(grid, rows.lengths[seen], rows.censored[seen], rows.weights[seen], prior)
        logs[word] = 5 * np.log(part / np.maximum(prior, 1e-6) + 1e-3)
    made = graph(logs, np.log(prior + 1e-6))
    readout = Readout(grid, "classes", prior.astype(np.float32), 1.5)
    return Encoder(made, read, sorted({r.model for r in rows.requests}), readout, "cpu")


def torch_encoder(folder: Path, decoder: bool = False) -> Path:
    """A narrow BERT, or an OPT, of random weights, as `from_pretrained` reads it."""
    import torch
    import transformers

    torch.manual_seed(0)
    size = len(SPECIAL) + len(WORDS)
    shape: dict[str, int] = {
        "vocab_size": size,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    if decoder:
        ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
        config = transformers.OPTConfig(**shape, ffn_dim=64, word_embed_proj_dim=32, **ids)
        transformers.OPTModel(config).save_pretrained(folder)
    else:
        config = transformers.BertConfig(**shape, intermediate_size=64)
        transformers.BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer())
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    wrapped.save_pretrained(folder)
    return folder
