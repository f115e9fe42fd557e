"""How long a step takes, and how that is found from measurements."""

import numpy as np
import pytest

from lengthpred.errors import DataError, SettingsError
from lengthpred.eval.replay.step_time import PRESET, StepTime


def test_the_preset_is_the_roofline_of_the_published_experiment() -> None:
    assert (PRESET.fixed_s, PRESET.prefill_token_s, PRESET.kv_token_s) == (0.018, 8e-5, 1.5e-7)
    assert PRESET.of(100_000, 1000) == pytest.approx(0.018 + 0.08 + 0.015)


def measured(true: StepTime, noise: float = 0.0, n: int = 200) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    prompts = np.where(rng.random(n) < 0.5, 0, rng.integers(1, 8192, n))
    kv = rng.integers(0, 200_000, n)
    return true.of(kv, prompts) * np.exp(noise * rng.normal(size=n)), prompts, kv


@pytest.mark.parametrize("true", [PRESET, StepTime(0.5, 0, 1e-5), StepTime(1e-3, 1e-4, 0)])
def test_fitting_finds_the_parts_again(true: StepTime) -> None:
    found = StepTime.fit(*measured(true))
    assert found.fixed_s == pytest.approx(true.fixed_s, rel=1e-6)
    assert found.prefill_token_s == pytest.approx(true.prefill_token_s, rel=1e-6, abs=1e-12)
    assert found.kv_token_s == pytest.approx(true.kv_token_s, rel=1e-6, abs=1e-15)


def test_fitting_bears_noise() -> None:
    found = StepTime.fit(*measured(PRESET, noise=0.1, n=4000))
    assert found.fixed_s == pytest.approx(PRESET.fixed_s, rel=0.05)
    assert found.prefill_token_s == pytest.approx(PRESET.prefill_token_s, rel=0.05)
    assert found.kv_token_s == pytest.approx(PRESET.kv_token_s, rel=0.1)


def test_no_part_is_below_zero() -> None:
    # The fuller the cache, the faster: least squares alone would say less than nothing a token.
    kv = np.arange(1, 50) * 1000
    found = StepTime.fit(1 - kv / 100_000, np.zeros(49), kv)
    assert found.kv_token_s == 0 and found.prefill_token_s == 0 and found.fixed_s > 0


@pytest.mark.parametrize("seconds", [[1.0, 1.0], [1.0, 1.0, 0.0], [1.0, -1.0, 1.0]])
def test_too_few_or_impossible_steps_are_refused(seconds: list[float]) -> None:
    with pytest.raises(DataError, match="three or more"):
        StepTime.fit(seconds, np.zeros(len(seconds)), np.zeros(len(seconds)))


@pytest.mark.parametrize("parts", [(0, 1, 1), (1, -1, 1), (1, 1, float("nan")), (1e400, 0, 0)])
def test_impossible_parts_are_refused(parts: tuple[float, float, float]) -> None:
    with pytest.raises(SettingsError, match="step times"):
        StepTime(*parts)
