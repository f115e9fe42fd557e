"""The encoder at serving time: graphs of a few kilobytes in the real ONNX Runtime."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer, normalizers

from lengthpred import LengthGrid, Request, load
from lengthpred.errors import ArtifactError
from lengthpred.metrics import tau
from lengthpred.models.encoder import Encoder, Readout, numbers
from lengthpred.models.encoder_input import Reader
from lengthpred.models.onnx_file import names_other_files
from lengthpred.models.score_table import ScoreTable
from tests.builders import build, synthetic_rows
from tests.tiny_encoders import graph, reader, tokenizer

GRID = LengthGrid()
FLAT = np.full(GRID.bins, 1 / GRID.bins, np.float32)


def one(prompt: str = "", context: str = "") -> str:
    """The tokens that are read of at most 8, and of a context 4."""
    found = reader(tokens=8, context_tokens=4).ids([Request(prompt=prompt, context=context)])
    name = Tokenizer.from_str(tokenizer().decode()).id_to_token
    return " ".join(str(name(i)) for i in found[0].tolist())


def test_a_short_prompt_is_read_whole() -> None:
    assert one("a b c") == "[CLS] a b c [SEP]"


def test_of_a_long_prompt_the_head_and_the_tail() -> None:
    # Six words fit: four of the head, two of the tail.
    assert one("a b c d e list poem sum code translate") == ("[CLS] a b c d code translate [SEP]")


def test_of_a_context_the_tail_in_a_segment_of_its_own() -> None:
    read = one("a", "list poem sum code translate")
    assert read == "[CLS] a [SEP] sum code translate [SEP]"
    assert one("a", "") == "[CLS] a [SEP]"


def test_a_megabyte_is_cut_before_it_is_split() -> None:
    assert one("a " * 50 + "poem " * 200_000 + "b " * 50) == "[CLS] a a a a b b [SEP]"


def test_half_a_surrogate_pair_is_read() -> None:
    assert one("a \ud800 b") == "[CLS] a [UNK] b [SEP]"


def test_padded_rows_and_their_mask() -> None:
    ids, mask = Reader(tokenizer(), 8, pad=7).padded([np.array([1, 2, 3]), np.array([4])])
    assert ids.tolist() == [[1, 2, 3], [4, 7, 7]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match="tokenizer cannot be read"):
        Reader(b"{}", 32)
    with pytest.raises(ValueError, match="reads nothing"):
        Reader(tokenizer(), 3)


def test_it_orders_requests_as_its_graph_does() -> None:
    test = synthetic_rows(300, 5)
    encoder = build("encoder")
    assert isinstance(encoder, Encoder)
    assert tau(encoder.predict(test.requests).median(), test.truth) > 0.5


def test_a_batch_on_a_gpu_is_put_back_in_order() -> None:
    """The same code with the CPU's kernels: batches of like lengths."""
    encoder = build("encoder")
    assert isinstance(encoder, Encoder)
    requests = synthetic_rows(150, 6).requests
    rows = encoder.reader.ids(requests)
    model = np.zeros(len(rows), np.int64)
    together = encoder._batched(rows, numbers(requests), model)
    np.testing.assert_allclose(together, encoder.outputs(requests), atol=1e-4)


def test_the_target_model_reaches_the_graph() -> None:
    made = graph(np.zeros((reader().vocabulary, 1)), np.zeros(1))
    parsed = onnx.load_from_string(made)
    for tensor in parsed.graph.initializer:
        if tensor.name == "levels":
            tensor.raw_data = np.array([[0.0], [1.0], [2.0]], np.float32).tobytes()
    table = ScoreTable(GRID, np.zeros(1), FLAT[None], FLAT)
    encoder = Encoder(
        parsed.SerializeToString(), reader(), ["x", "y"], Readout(GRID, "score", FLAT, table=table)
    )
    asked = [Request(prompt="a", model=model) for model in ("x", "y", "other", "")]
    assert encoder.outputs(asked)[:, 0].tolist() == [1.0, 2.0, 0.0, 0.0]


def test_classes_mean_distributions() -> None:
    classes = np.zeros((2, GRID.bins), np.float32)
    classes[0, 3], classes[1, 40] = 1, 1
    readout = Readout(GRID, "classes", FLAT, 2.0, classes)
    pmf = readout(np.array([[0.0, 2 * np.log(3)]], np.float32))
    np.testing.assert_allclose(pmf[0, [3, 40]], [0.25, 0.75], atol=1e-6)


def test_what_is_unknown_of_a_conversation_is_a_number() -> None:
    assert np.isfinite(numbers([Request(), Request(prompt="a", reply_tokens=(2**40,))])).all()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"no graph", "no ONNX file"),
        (graph(np.zeros((30, 2)), np.zeros(2)), "do not fit"),
        (graph(np.zeros((3, GRID.bins)), np.zeros(GRID.bins)), "does not run"),
    ],
    ids=["bytes", "outputs", "vocabulary"],
)
def test_a_graph_that_does_not_fit_is_refused(bad: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Encoder(bad, reader(), [], Readout(GRID, "classes", FLAT))


def outside(tmp_path: Path) -> bytes:
    """A graph that names a file beside it."""
    parsed = onnx.load_from_string(graph(np.zeros((30, GRID.bins)), np.zeros(GRID.bins)))
    onnx.save_model(
        parsed,
        tmp_path / "g.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return (tmp_path / "g.onnx").read_bytes()


def test_weights_in_another_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph names its files by path: it could read any on the machine."""
    # The length of "location" in two bytes, which protobuf allows: no search finds all spellings.
    entry = _field(1, b"location", wide=True) + _field(2, b"weights.bin")
    tensor = b"\x08\x01\x10\x01" + _field(8, b"w") + _field(13, entry)
    wide = _field(7, _field(5, tensor))
    monkeypatch.chdir(tmp_path)
    for data in (outside(tmp_path), wide):
        assert onnx.load_from_string(data).graph.initializer[0].external_data[0].key == "location"
        with pytest.raises(ValueError, match="another file"):
            Encoder(data, reader(), [], Readout(GRID, "classes", FLAT))
    assert not names_other_files(graph(np.zeros((30, GRID.bins)), np.zeros(GRID.bins)))


def _field(number: int, value: bytes, wide: bool = False) -> bytes:
    """A field of bytes, below 16 and shorter than 2**14, as protobuf writes it."""
    size = len(value)
    short = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + (bytes([size | 128, 0]) if wide else short) + value


def test_attributes_and_subgraphs_are_walked() -> None:
    """A tensor may hide in a constant within the branch of a condition."""
    hidden = onnx.TensorProto(name="h", data_type=1, dims=[1], data_location="EXTERNAL")
    hidden.external_data.add(key="location", value="/etc/passwd")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=hidden)
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    node = onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    whole = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    assert names_other_files(whole.SerializeToString())
    function = onnx.helper.make_function("d", "f", ["x"], ["y"], [constant], [])
    whole = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []), functions=[function])
    assert names_other_files(whole.SerializeToString())


@pytest.mark.parametrize("data", [b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 20, b"\x0b"])
def test_what_is_no_onnx_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no ONNX file"):
        names_other_files(data)


@pytest.mark.parametrize(
    ("readout", "says"),
    [
        (Readout(GRID, "classes", FLAT, 0.0), "above 0"),
        (Readout(GRID, "classes", FLAT, float("nan")), "above 0"),
        (Readout(GRID, "classes", FLAT * 2), "sum to one"),
        (Readout(GRID, "classes", FLAT, 1.0, FLAT[None] * np.nan), "sum to one"),
        (Readout(GRID, "score", FLAT), "lacks what it needs"),
    ],
    ids=["zero", "nan", "prior", "classes", "table"],
)
def test_a_readout_that_gives_no_distributions_is_refused(readout: Readout, says: str) -> None:
    made = graph(np.zeros((reader().vocabulary, readout.outputs)), np.zeros(readout.outputs))
    with pytest.raises(ValueError, match=says):
        Encoder(made, reader(), [], readout)


def test_a_graph_that_answers_with_no_number_is_refused() -> None:
    made = graph(np.full((reader().vocabulary, GRID.bins), np.nan), np.zeros(GRID.bins))
    with pytest.raises(ValueError, match="not finite"):
        Encoder(made, reader(), [], Readout(GRID, "classes", FLAT))


def test_nothing_is_asked_of_nobody() -> None:
    encoder = build("encoder")
    assert isinstance(encoder, Encoder)
    assert encoder.outputs([]).shape == (0, GRID.bins)


def test_a_prompt_of_which_a_tokenizer_makes_nothing() -> None:
    bare = Tokenizer.from_str(tokenizer().decode())
    bare.post_processor = None
    bare.normalizer = normalizers.Replace("x", "")
    found = Reader(bare.to_str().encode(), 8, pad=0).ids([Request(prompt="xxx")])
    assert found[0].tolist() == [0]


def test_a_damaged_artifact_is_named(tmp_path: Path) -> None:
    folder = build("encoder").save(tmp_path / "e")
    (folder / "encoder.onnx").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"encoder\.onnx is damaged"):
        load(folder)


def test_serving_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    folder = build("encoder").save(tmp_path / "e")
    code = (
        "import sys\n"
        "from lengthpred import Request, load\n"
        f"p = load({str(folder)!r})\n"
        "print(p.predict([Request(prompt='list of snow')]).median()[0])\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'datasets', 'onnx', 'lengthpred.training'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
