"""What a long step says where there is no terminal."""

import pytest

from lengthpred.cli.console import steps


def test_what_takes_long_is_told_now_and_then_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    lines: list[tuple[float, str]] = []
    with steps("training", "[a] ", clock=lambda: now) as told:

        def tell(at: float, step: str, done: int = 0, total: int = 0) -> None:
            nonlocal now
            now = at
            told(step, done, total)
            lines.extend((at, line) for line in capsys.readouterr().err.splitlines())

        for second in range(20):
            tell(second, "reading")
        for second in range(20, 200, 5):
            tell(second, "the encoder", 12 * second, 2438)
        for second in range(200, 300, 5):
            tell(second, f"scoring {second // 10}")  # short ones put no line off
    assert lines == [
        (30, "[a] the encoder: 360 of 2,438"),
        (90, "[a] the encoder: 1,080 of 2,438"),
        (150, "[a] the encoder: 1,800 of 2,438"),
        (210, "[a] scoring 21"),
        (270, "[a] scoring 27"),
    ]
