"""The encoder trained for real: a tiny transformer in torch, exported and run by ONNX Runtime."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthpred import LengthGrid, load
from lengthpred.data.table import Rows
from lengthpred.errors import DataError, LengthPredError, MissingExtraError, SettingsError
from lengthpred.metrics import scores, tau
from lengthpred.models.encoder import Encoder
from lengthpred.training.settings import EncoderSettings
from tests.builders import synthetic_rows
from tests.data_files import lengthpred
from tests.tiny_encoders import torch_encoder
from tests.training.tables import table_on_disk

pytestmark = pytest.mark.slow
FAST = {"tokens": 32, "context_tokens": 0, "learning_rate": 3e-3, "head_learning_rate": 3e-3}
HEADS: dict[str, Mapping[str, Any]] = {
    "distribution": {},
    "point": {"head": "point"},
    "classes": {"head": "classes", "classes": 6},
    "listmle": {"head": "listmle"},
    "pairwise": {"head": "pairwise"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torch_encoder(tmp_path_factory.mktemp("encoder"))


def trained(folder: Path, rows: Rows, seed: int = 0, **settings: Any) -> Encoder:
    from lengthpred.training.encoder import train

    asked = EncoderSettings.model_validate(
        {"encoder": str(folder), **FAST, "epochs": 4, **settings}
    )
    return train(rows, synthetic_rows(1000, 2), asked, np.random.default_rng(seed))


@cache
def example(folder: Path, head: str) -> Encoder:
    """Of the text alone: the numbers tell these synthetic rows' first word, too.

    In float32: so narrow a network does not bear eight bits.
    """
    return trained(folder, synthetic_rows(2000, 1), numbers=False, int8=False, **HEADS[head])


@pytest.mark.parametrize("head", HEADS)
def test_each_head_learns_the_order_and_keeps_its_promise(head: str, folder: Path) -> None:
    test = synthetic_rows(2000, 3)
    answer = example(folder, head).predict(test.requests)
    found = scores(answer, test.truth, test.truth_censored, np.random.default_rng(0))
    # The truth of these rows: the first word's mean; what is left is noise.
    words = [request.prompt.split()[0] for request in test.requests]
    means = {word: np.median(test.truth[np.array(words) == word]) for word in set(words)}
    best = tau([means[word] for word in words], test.truth)
    assert found["tau"] > 0.85 * best
    # A score's table blurs the few sorts of rows that there are here.
    assert 0.76 < found["coverage_80"] < (0.84 if "distribution" in head else 0.88)


def test_eight_bits_are_a_third_of_the_size_and_say_the_same(folder: Path) -> None:
    exact = trained(folder, synthetic_rows(600, 1), int8=False)
    small = trained(folder, synthetic_rows(600, 1))
    assert len(small.graph) < 0.6 * len(exact.graph)
    requests = synthetic_rows(300, 3).requests
    apart = exact.predict(requests).median() / small.predict(requests).median()
    assert np.median(np.abs(np.log(apart))) < 0.1


def test_a_graph_that_is_not_the_network_is_refused(folder: Path) -> None:
    import torch

    from lengthpred.training.export import INPUTS, check_parity

    class Wrong(torch.nn.Module):  # type: ignore[misc]
        def forward(self, input_ids: Any, *others: Any) -> Any:
            return torch.full((len(input_ids), 1), 0.5)

    rows = {name: np.zeros((2, 3), np.int64) for name in INPUTS}
    close, far = (np.full((2, 1), value, np.float32) for value in (0.5005, 0.502))
    assert check_parity(Wrong(), lambda: close, rows) == pytest.approx(5e-4, rel=0.01)
    with pytest.raises(LengthPredError, match=r"differs from the trained network by 0\.002"):
        check_parity(Wrong(), lambda: far, rows)


def test_fewer_layers_are_evenly_spread(folder: Path) -> None:
    from lengthpred.training.encoder_network import pretrained

    whole = pretrained(EncoderSettings(encoder=str(folder), tokens=32, context_tokens=0))
    half = pretrained(EncoderSettings(encoder=str(folder), tokens=32, context_tokens=0, layers=2))
    kept = half.model.encoder.layer
    assert len(kept) == 2
    for mine, theirs in zip(kept, (1, 3), strict=True):
        first = next(mine.parameters())
        assert (first == next(whole.model.encoder.layer[theirs].parameters())).all()
    assert len(trained(folder, synthetic_rows(200), layers=2, epochs=1).graph) < len(
        trained(folder, synthetic_rows(200), epochs=1).graph
    )


def test_the_target_model_is_told_apart(folder: Path) -> None:
    rows = synthetic_rows(2000, 1)
    longer = np.array([request.model == "model-b" for request in rows.requests])
    rows = replace(rows, lengths=np.where(longer, 4 * rows.lengths, rows.lengths))
    encoder = trained(folder, rows)
    asked = synthetic_rows(200, 4).requests
    of = {
        model: float(np.median(encoder.predict([replace(r, model=model) for r in asked]).median()))
        for model in ("model-a", "model-b", "other")
    }
    assert of["model-b"] > 2 * of["model-a"]
    assert of["model-a"] < of["other"] < of["model-b"]


def test_stopped_answers_count_as_at_least(folder: Path) -> None:
    """All answers are 200 tokens long; half of them were stopped at 20."""
    rows = synthetic_rows(1000, 1)
    stopped = np.random.default_rng(0).random(len(rows)) < 0.5
    rows = replace(rows, lengths=np.where(stopped, 20, 200), censored=stopped)
    for head in ("distribution", "point"):
        outputs = trained(folder, rows, **HEADS[head]).outputs(rows.requests[:50])
        likely = outputs.argmax(axis=1) if head == "distribution" else outputs[:, 0]
        wanted = LengthGrid().index(200) if head == "distribution" else np.log1p(200)
        assert np.abs(likely - wanted).max() < (3 if head == "distribution" else 1)


def test_a_frozen_transformer_stays_as_it_is(folder: Path) -> None:
    import onnx
    from onnx import numpy_helper

    def words(encoder: Encoder) -> Any:
        stored = onnx.load_from_string(encoder.graph).graph.initializer
        return next(numpy_helper.to_array(t) for t in stored if "word_embeddings" in t.name)

    rows = synthetic_rows(200)
    frozen = [trained(folder, rows, s, int8=False, freeze=True, epochs=1) for s in (0, 1)]
    moved = trained(folder, rows, int8=False, epochs=1)
    assert (words(frozen[0]) == words(frozen[1])).all()
    assert (words(frozen[0]) != words(moved)).any()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tokens": 100}, "reads 64 tokens at most"),
        ({"layers": 9}, "has 4"),
        ({"encoder": "/nowhere/at-all"}, "cannot be loaded: there is no such folder"),
        ({"encoder": "damaged"}, "'damaged' cannot be loaded"),
    ],
)
def test_a_transformer_that_does_not_fit(
    settings: dict[str, Any],
    says: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged").mkdir()
    with pytest.raises(SettingsError, match=says):
        trained(folder, synthetic_rows(200), **settings)


@pytest.mark.parametrize(("n", "held", "use"), [(49, 60, "train"), (60, 49, "calibrate")])
def test_the_part_that_is_too_small_is_named(n: int, held: int, use: str, folder: Path) -> None:
    from lengthpred.training.encoder import train

    asked = EncoderSettings(encoder=str(folder))
    with pytest.raises(DataError, match=f"50 rows with a prompt to {use} on; there are 49"):
        train(synthetic_rows(n), synthetic_rows(held), asked, np.random.default_rng(0))


SCRIPT = """
import sys
from pathlib import Path
from lengthpred.training import encoder_loop
from lengthpred.training.fit import fit
encoder_loop.CHECKPOINT_S = 0.0
first = []
def told(step, done, total):
    if step.startswith("training the encoder") and not first:
        first[:] = [done, step]
data, out, recipe = map(Path, sys.argv[1:])
fit("encoder", data, out, recipe=recipe, on_progress=told)
Path(f"{out}-first").write_text("{} {}".format(*first))
"""


def recipe(path: Path, folder: Path, **settings: Any) -> Path:
    values = {"encoder": str(folder), **FAST, **settings}
    path.write_text("\n".join(f"{k} = {v!r}".replace("True", "true") for k, v in values.items()))
    return path


def test_a_killed_run_goes_on_as_if_it_had_not_been(folder: Path, tmp_path: Path) -> None:
    table = table_on_disk(tmp_path / "t.parquet", synthetic_rows(1200))
    toml = recipe(tmp_path / "r.toml", folder, epochs=3, precision="no")

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SCRIPT, str(table), str(tmp_path / out), str(toml)]
        return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})

    assert start("undisturbed").wait() == 0
    process = start("killed")
    kept = None
    until = time.monotonic() + 120
    while kept is None and process.poll() is None and time.monotonic() < until:
        kept = next(tmp_path.glob(".killed.training-*[!w]"), None)
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and kept is not None
    assert not (tmp_path / "killed").exists()
    assert start("killed").wait() == 0
    assert not list(tmp_path.glob(".killed*"))
    begun = [(tmp_path / f"{out}-first").read_text() for out in ("undisturbed", "killed")]
    after = int(begun[1].split()[0]) - 1
    assert begun[0] == "1 training the encoder" and after > 0
    assert begun[1].endswith(f" training the encoder, gone on from step {after}")
    for name in ("encoder.onnx", "arrays.safetensors", "config.json"):
        first, second = (tmp_path / out / name for out in ("undisturbed", "killed"))
        assert first.read_bytes() == second.read_bytes(), name


EACH = """
import os, sys
from pathlib import Path
from lengthpred.training.fit import fit
steps = []
def told(step, done, total):
    if step == "training the encoder":
        steps.append(total)
data, out, recipe = map(Path, sys.argv[1:])
try:
    fit("encoder", data, out, recipe=recipe, on_progress=told)
finally:
    Path(f"{out}-{os.environ['RANK']}").write_text(f"{os.environ['WORLD_SIZE']} {steps[-1]}")
"""


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_checkpoint_that_does_not_fit_is_left_alone(
    damage: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lengthpred.training import encoder_loop
    from lengthpred.training.encoder import train

    monkeypatch.setattr(encoder_loop, "CHECKPOINT_S", 0.0)
    kept = tmp_path / "kept"
    asked = EncoderSettings(encoder=str(folder), **FAST, epochs=1, precision="no")  # type: ignore[arg-type]
    parts = synthetic_rows(300, 1), synthetic_rows(100, 2)
    first = train(*parts, asked, np.random.default_rng(0), checkpoint=kept)
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:1000])
    else:  # that of a run that began with other weights
        train(*parts, asked, np.random.default_rng(1), checkpoint=tmp_path / "b")
        (tmp_path / "b").replace(kept)
    with pytest.warns(UserWarning, match="begins anew"):
        again = train(*parts, asked, np.random.default_rng(0), checkpoint=kept)
    assert again.graph == first.graph


def test_a_decoder_is_exported_too(tmp_path: Path) -> None:
    """Its attention looks back only; the last token's state is what is read."""
    made = torch_encoder(tmp_path / "opt", decoder=True)
    encoder = trained(made, synthetic_rows(400, 1), pooling="last", head="point", int8=False)
    test = synthetic_rows(300, 3)
    assert tau(encoder.predict(test.requests).median(), test.truth) > 0.3


def test_one_that_diverges_is_not_saved(folder: Path) -> None:
    rates: dict[str, Any] = {"learning_rate": 1e30, "head_learning_rate": 1e30}
    with pytest.raises(SettingsError, match="no finite loss"):
        trained(folder, synthetic_rows(200), epochs=1, **rates)


def test_rows_of_one_group_are_parted_all_the_same(folder: Path) -> None:
    from lengthpred.training.encoder import _valid

    rng = np.random.default_rng(0)
    rows = synthetic_rows(200)
    assert _valid(replace(rows, groups=np.zeros(200, int)), rng).sum() == 16
    uneven = np.repeat([0, 1, 2], [185, 10, 5])
    picked = _valid(replace(rows, groups=uneven), rng)
    assert 0 < picked.sum() <= 16 and not picked[:185].any()


def test_two_precisions_in_one_process(folder: Path) -> None:
    rows = synthetic_rows(200)
    for precision in ("no", "bf16", "no"):
        trained(folder, rows, epochs=1, precision=precision, int8=False)
    with pytest.raises(SettingsError, match="needs a GPU"):
        trained(folder, rows, precision="fp16")


def test_calibration_rows_that_were_all_stopped(folder: Path) -> None:
    from lengthpred.training.encoder import train

    held = synthetic_rows(100, 2)
    held = replace(held, censored=np.ones(len(held), bool))
    asked = EncoderSettings(encoder=str(folder), **FAST, epochs=1)  # type: ignore[arg-type]
    encoder = train(synthetic_rows(200, 1), held, asked, np.random.default_rng(0))
    assert np.isfinite(encoder.predict(held.requests).pmf).all()


def test_two_processes_train_one_artifact(folder: Path, tmp_path: Path) -> None:
    table = table_on_disk(tmp_path / "t.parquet", synthetic_rows(1200))
    toml = recipe(tmp_path / "r.toml", folder, epochs=3, device="cpu", precision="no")
    script = tmp_path / "each.py"
    script.write_text(EACH)
    # "multi_gpu" starts several processes; the recipe says that they run on the CPU.
    launch = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
    done = subprocess.run(
        [
            *(sys.executable, "-m", *launch.split(), "--mixed_precision", "no"),
            *("--main_process_port", "0"),
            *map(str, (script, table, tmp_path / "out", toml)),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = ((tmp_path / f"out-{rank}").read_text().split() for rank in (0, 1))
    assert first == second and first[0] == "2"
    # Each took half of the batches of 32 of each of three passes over a bit less than 85 %.
    assert int(first[1]) < 3 * (0.85 * 1200 / 32 / 2 + 2)
    test = synthetic_rows(500, 3)
    assert tau(load(tmp_path / "out").predict(test.requests).median(), test.truth) > 0.4


def test_the_command_prints_no_noise(folder: Path, tmp_path: Path) -> None:
    table = table_on_disk(tmp_path / "t.parquet", synthetic_rows(300))
    toml = recipe(tmp_path / "r.toml", folder, epochs=1)
    code, out, err = lengthpred(
        "train", "encoder", "--data", table, "--recipe", toml, "--out", tmp_path / "e", apart=True
    )
    assert code == 0, err
    assert out.splitlines()[0].endswith("(encoder)")
    assert "warning" not in err.lower(), err


def test_torch_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from lengthpred.training.encoder import train

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"lengthpred\[train,torch\]"):
        train(synthetic_rows(100), synthetic_rows(100), EncoderSettings(), np.random.default_rng(0))
