"""Commands on small artifacts."""

from pathlib import Path

from tests.builders import build
from tests.data_files import lengthpred

__all__ = ["answered", "artifact", "refused"]


def artifact(folder: Path, kind: str = "histogram") -> Path:
    """A trained artifact whose training data held model-a and model-b."""
    from lengthpred.artifact import Card

    built = build(kind)
    built.card = Card(("model-a", "model-b"), "0" * 64, {})
    return built.save(folder / kind)


def answered(
    *arguments: object, env: dict[str, str] | None = None, apart: bool = False
) -> tuple[str, str]:
    """What a command that does well prints on stdout and on stderr."""
    code, out, err = lengthpred(*arguments, env=env, apart=apart)
    assert code == 0, out + err
    assert "Traceback" not in err
    return out, err


def refused(*arguments: object, env: dict[str, str] | None = None) -> str:
    """The one sentence on stderr of a command that ends with exit code 2 and does nothing."""
    code, out, err = lengthpred(*arguments, env=env)
    assert code == 2, out + err
    assert not out and "Traceback" not in err
    assert err.startswith("error: ") and len(err.strip().splitlines()) == 1
    return err
