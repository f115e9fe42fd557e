"""A model that runs here: what it writes, when it stops, and what it says of unusable files."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthpred.base import Request
from lengthpred.errors import BackendError, SettingsError
from lengthpred.models.backends.base import Backend, ReadingBackend, Source, TextBackend
from lengthpred.models.backends.decoding import ENDED_SHARE, uniforms
from lengthpred.models.backends.loading import checksum_of
from lengthpred.models.backends.transformers import TransformersBackend
from tests.smollm2 import smollm2_backend

PROMPTS = (
    "What is 2 + 2? Answer with the number only.",
    "Say yes.",
    "Name the capital of France.",
    "Reply with one word: what colour is the sky?",
    "Write a poem about the sea and the harbour at night, in twelve lines.",
    "Is water wet? Yes or no?",
    "Give three tips for staying healthy.",
    "Translate into Spanish: Good morning, my friends. The bread on the table is for all of you.",
)
REQUESTS = [Request(prompt=prompt) for prompt in PROMPTS]


def ask(backend: TransformersBackend, requests: list[Request], **wanted: Any) -> Any:
    """Lengths and censored, greedy in one sample unless something else is wanted."""
    defaults: dict[str, Any] = {
        "n": 1,
        "temperature": 0.0,
        "cap": 64,
        "deadline_s": None,
        "seed": 0,
    }
    return backend.generate_lengths(requests, **{**defaults, **wanted})


def tokens_of(backend: TransformersBackend, requests: list[Request], cap: int) -> list[list[int]]:
    return [row[0].tokens for row in backend._answers(requests, 1, 0.0, cap, None, 0)]


@contextmanager
def tokens_fed(backend: TransformersBackend) -> Iterator[list[tuple[int, int]]]:
    """The (rows, tokens) of every call of the model."""
    with backend._held(None) as loaded:
        assert loaded is not None
    fed: list[tuple[int, int]] = []

    def note(model: Any, positional: Any, named: Any) -> None:
        fed.append(tuple(named["input_ids"].shape))

    handle = loaded.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield fed
    finally:
        handle.remove()


def backend_of(path: Path, **settings: Any) -> TransformersBackend:
    return TransformersBackend(Source("transformers", str(path), **settings))


def folder_of(path: Path) -> Path:
    """Files that have the right names."""
    path.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (path / name).write_text(name)
    return path


# Without torch


def test_it_keeps_the_protocols_and_loads_nothing_before_it_is_asked(tmp_path: Path) -> None:
    backend: Backend = backend_of(tmp_path / "nothing")
    assert isinstance(backend, TextBackend) and isinstance(backend, ReadingBackend)
    backend.close()
    code = "import lengthpred.models.backends.transformers, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["nothing", "nothing.gguf", "a/b/c"])
def test_a_missing_path_is_one_sentence_and_not_looked_up(tmp_path: Path, name: str) -> None:
    backend = backend_of(tmp_path / name)
    with pytest.raises(BackendError, match=f"there is no model at .*{name}"):
        ask(backend, REQUESTS)
    with pytest.raises(BackendError, match=f"there is no model at .*{name}"):
        backend.checksum()


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("a model")
    with pytest.raises(BackendError, match=r"neither a model's folder nor a \.gguf file"):
        ask(backend_of(tmp_path / "model.txt"), REQUESTS)


def test_another_checksum_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    backend = backend_of(folder_of(tmp_path / "model"), checksum="0" * 64)
    with pytest.raises(BackendError, match="not the model that this predictor was trained with"):
        ask(backend, REQUESTS)


def test_an_unknown_dtype(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Did you mean 'float32'"):
        ask(backend_of(folder_of(tmp_path / "model"), dtype="flaot32"), REQUESTS)


def test_the_checksum_tells_models_apart_and_nothing_else(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model")
    first = checksum_of(folder)
    (folder / "README.md").write_text("read me")
    (folder / "pytorch_model.bin").write_text("the same weights")
    assert checksum_of(folder) == first == checksum_of(folder_of(tmp_path / "copy"))
    (folder / "tokenizer.json").write_text("another")
    second = checksum_of(folder)
    (folder / "tokenizer.json").rename(folder / "tokenizer_config.json")
    assert len({first, second, checksum_of(folder)}) == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackendError, match="holds no files of a model"):
        checksum_of(tmp_path / "empty")


def test_numbers_of_a_row_do_not_depend_on_how_many_are_drawn() -> None:
    many, few = uniforms(b"k" * 32, 3, 50, 7), uniforms(b"k" * 32, 2, 20, 7)
    assert np.array_equal(many[:2, :20], few) and not np.array_equal(few[0], few[1])
    assert not np.array_equal(uniforms(b"k" * 32, 2, 20, 8), few)
    assert not np.array_equal(uniforms(b"j" * 32, 2, 20, 7), few)


# The real model


@pytest.fixture(scope="session")
def smollm2() -> TransformersBackend:
    return smollm2_backend()


def check_only_ties_differ(
    backend: TransformersBackend, request: Request, one: list[int], other: list[int]
) -> None:
    """Two greedy answers may part only where the two best logits are within 1e-3."""
    if one == other:
        return
    import torch

    from lengthpred.models.backends.transformers import _tokens

    with backend._held(None) as loaded:
        assert loaded is not None
        end = -1  # of an answer that is over
        place = next(i for i in range(65) if [*one, end][i] != [*other, end][i])
        ids = torch.tensor([_tokens(loaded, request, None) + one[:place]])
        best = loaded.model(input_ids=ids).logits[0, -1].topk(2)
    assert best.values[0] - best.values[1] < 1e-3
    ends = loaded.ends | {end}
    for token in ([*one, end][place], [*other, end][place]):
        assert set(best.indices.tolist()) & (ends if token == end else {token})


@pytest.mark.slow
def test_a_batch_answers_as_its_requests_do_alone(smollm2: TransformersBackend) -> None:
    together = tokens_of(smollm2, REQUESTS, 64)
    few = [*REQUESTS[:6], REQUESTS[7]]
    alone = [tokens_of(smollm2, [request], 64)[0] for request in few]
    assert len({len(tokens) for tokens in together}) > 3
    for request, one, other in zip(few, [*together[:6], together[7]], alone, strict=True):
        check_only_ties_differ(smollm2, request, one, other)
    with pytest.raises(AssertionError):
        check_only_ties_differ(smollm2, REQUESTS[0], together[0], [*together[0][:-1], 17])
    with pytest.raises(AssertionError):
        check_only_ties_differ(smollm2, REQUESTS[4], together[4], together[4][:9])
    # Calls cut small for a deadline that does not come, in which some rows are padding only.
    lengths, censored = ask(smollm2, REQUESTS[:5], cap=8, deadline_s=300.0)
    assert np.array_equal(lengths[:, 0], [min(len(tokens), 8) for tokens in together[:5]])
    assert np.array_equal(censored[:, 0], [len(tokens) >= 8 for tokens in together[:5]])


@pytest.mark.slow
def test_texts_are_those_of_transformers(smollm2: TransformersBackend) -> None:
    said = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    requests = [*REQUESTS[:3], Request(prompt="And 3?", context="user: 2 + 2?\nassistant: 4")]
    texts = smollm2.generate_texts(requests, 1, 0.0, 24, None, 0)
    with smollm2._held(None) as loaded:
        assert loaded is not None
        for request, [text] in zip(requests, texts, strict=True):
            turns = [
                *(said if request.context else []),
                {"role": "user", "content": request.prompt},
            ]
            asked = loaded.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            written = loaded.model.generate(**asked, do_sample=False, max_new_tokens=24)
            answer = written[0, asked["input_ids"].shape[1] :]
            assert text == loaded.tokenizer.decode(answer, skip_special_tokens=True)


@pytest.mark.slow
def test_the_cap_censors(smollm2: TransformersBackend) -> None:
    lengths, censored = ask(smollm2, [REQUESTS[4], Request(), REQUESTS[6]], n=2, cap=4)
    assert lengths.tolist() == [[4, 4], [0, 0], [4, 4]] and censored.all()


@pytest.mark.slow
def test_a_deadline_is_kept(smollm2: TransformersBackend) -> None:
    requests = [Request(prompt=f"{prompt} {i}") for i in range(8) for prompt in PROMPTS]
    ask(smollm2, REQUESTS[:1], cap=1)  # loads the model
    begun = time.monotonic()
    lengths, censored = ask(smollm2, requests, cap=512, deadline_s=0.5)
    assert time.monotonic() - begun < 2.5
    assert lengths.shape == censored.shape == (64, 1) and censored.any()


@pytest.mark.slow
def test_reading_in_a_batch_is_reading_alone(smollm2: TransformersBackend) -> None:
    import torch

    states, entropies = smollm2.read([*REQUESTS, Request()])
    assert np.isnan(states[-1]).all() and np.isnan(entropies[-1])
    for row, request in enumerate(REQUESTS[:4]):
        state, entropy = smollm2.read([request])
        assert np.allclose(states[row], state[0], atol=1e-3)
        assert np.allclose(entropies[row], entropy[0], atol=1e-3)
    with smollm2._held(None) as loaded:
        assert loaded is not None
        asked = loaded.tokenizer.apply_chat_template(
            [{"role": "user", "content": PROMPTS[4]}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        found = loaded.model(**asked, output_hidden_states=True)
        expected = torch.distributions.Categorical(logits=found.logits[0, -1]).entropy()
        assert torch.allclose(torch.tensor(states[4]), found.hidden_states[-1][0, -1], atol=1e-3)
        assert abs(float(expected) - entropies[4]) < 1e-3
        # After the norm: it is what the logits are made from.
        logits = loaded.model.get_output_embeddings()(torch.tensor(states[4]))
        assert torch.allclose(logits, found.logits[0, -1], atol=1e-2)


@pytest.mark.slow
def test_another_file_is_refused(smollm2: TransformersBackend) -> None:
    path = Path(smollm2.source.model)
    with pytest.raises(BackendError, match="not the model that this predictor was trained with"):
        ask(backend_of(path, checksum="0" * 64), REQUESTS)


# A model of random weights, small enough to write many answers, with the real tokenizer


@pytest.fixture(scope="session")
def tiny(smollm2: TransformersBackend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: no chat template, 256 tokens of context, and every 32nd token ends an answer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    with smollm2._held(None) as loaded:
        assert loaded is not None
        loaded.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = list(range(0, 49152, 32))
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_rows_that_have_ended_leave(tiny: Path) -> None:
    backend = backend_of(tiny)
    requests = [Request(prompt=f"word {i}") for i in range(48)]
    with tokens_fed(backend) as fed:
        lengths, censored = ask(backend, requests, temperature=1.0, cap=100)
    assert 0 < censored.sum() < 10 and lengths[censored].min() == 100
    steps = [rows for rows, _ in fed[1:]]
    assert {tokens for _, tokens in fed[1:]} == {1} and len(steps) == 100
    needed = lengths.sum() + (~censored).sum()
    assert needed <= sum(steps) <= needed / (1 - ENDED_SHARE)
    assert sum(steps) < 0.6 * 48 * 100  # what the longest would cost all of them


@pytest.mark.slow
def test_samples_depend_on_the_seed_and_the_prompt_alone(tiny: Path) -> None:
    backend = backend_of(tiny)
    requests = [Request(prompt="word " * (i + 1)) for i in range(9)]
    first, ended = ask(backend, requests, n=3, temperature=1.0)
    assert len({tuple(row) for row in first.tolist()}) == 9  # no sample is another's
    again, _ = ask(backend, requests[::-1], n=3, temperature=1.0)
    assert np.array_equal(first, again[::-1])
    small, small_ended = ask(backend_of(tiny, batch=4), requests[2:5], n=2, temperature=1.0)
    assert np.array_equal(first[2:5, :2], small) and np.array_equal(ended[2:5, :2], small_ended)
    other, _ = ask(backend, requests, n=3, temperature=1.0, seed=1)
    assert not np.array_equal(first, other)


@pytest.mark.slow
def test_requests_without_text_and_nothing_to_do(tiny: Path) -> None:
    backend = backend_of(tiny)
    requests = [Request(), Request(prompt=" \n"), Request(prompt="half an emoji \ud83d")]
    lengths, censored = ask(backend, requests, temperature=1.0, n=2)
    assert lengths[:2].tolist() == [[0, 0], [0, 0]] and censored[:2].all() and lengths[2].any()
    assert backend.generate_texts(requests[:1], 2, 0.0, 4, None, 0) == [["", ""]]
    assert [values.shape for values in ask(backend, [], n=2)] == [(0, 2), (0, 2)]
    lengths, censored = ask(backend, requests, cap=0)
    assert not lengths.any() and censored.all()
    lengths, censored = ask(backend, requests, deadline_s=0.0)
    assert not lengths.any() and censored.all()
    states, entropies = backend.read([])
    assert states.shape == (0, 32) and entropies.shape == (0,)


@pytest.mark.slow
def test_a_long_prompt_keeps_head_and_tail_and_leaves_room(tiny: Path) -> None:
    backend = backend_of(tiny)
    middle = "word " * 40_000
    requests = [Request(prompt=f"{head} {middle} {tail}") for head in "ab" for tail in "yz"]
    states, _ = backend.read(requests)
    assert len(np.unique(states.round(4), axis=0)) == 4
    with tokens_fed(backend) as fed:
        lengths, censored = ask(backend, requests, temperature=1.0, n=3, cap=10_000)
    # Half of the context is the prompt's, and what the answers fill is the other half.
    assert max(tokens for _, tokens in fed) == 127 and lengths.max() <= 128
    assert (lengths[censored] == 128).all()


@pytest.mark.slow
def test_a_base_model_goes_on_from_the_text(tiny: Path) -> None:
    from lengthpred.models.backends.transformers import _tokens

    with backend_of(tiny)._held(None) as loaded:
        assert loaded is not None
        found = _tokens(loaded, Request(prompt="And 3?", context="user: 2 + 2?"), None)
        assert loaded.tokenizer.decode(found) == "user: 2 + 2?\nAnd 3?"
        assert len(loaded.ends) >= 49152 / 32  # the generation config's list


@pytest.mark.slow
def test_a_closed_model_opens_again(tiny: Path) -> None:
    backend = backend_of(tiny, checksum=checksum_of(tiny))
    first, _ = ask(backend, REQUESTS)
    backend.close()
    assert np.array_equal(ask(backend, REQUESTS)[0], first)


@pytest.mark.slow
def test_a_folder_without_tokenizer_or_with_another_kind_of_model(
    tiny: Path, tmp_path: Path
) -> None:
    from transformers import BertConfig, BertModel, LlamaForCausalLM

    LlamaForCausalLM.from_pretrained(tiny).save_pretrained(tmp_path / "bare")
    with pytest.raises(BackendError, match="holds no tokenizer to use"):
        ask(backend_of(tmp_path / "bare"), REQUESTS)
    config = BertConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "encoder" / name).write_bytes((tiny / name).read_bytes())
    with pytest.raises(BackendError, match="is no causal language model: it lacks"):
        ask(backend_of(tmp_path / "encoder"), REQUESTS)
    (tiny_copy := tmp_path / "damaged").mkdir()
    for file in tiny.iterdir():
        (tiny_copy / file.name).write_bytes(
            file.read_bytes()[: 2000 if "safe" in file.name else None]
        )
    with pytest.raises(BackendError, match="cannot be loaded as a causal language model"):
        ask(backend_of(tiny_copy), REQUESTS)
    with pytest.raises(BackendError, match="cannot be put on the device 'abacus'"):
        ask(backend_of(tiny, device="abacus"), REQUESTS)
