"""README.md of a repository on the hub, made from what the manifest says."""

from lengthpred.hub.references import References
from lengthpred.manifest import FORMAT_VERSION, Manifest
from lengthpred.registry import resolve

__all__ = ["CARD", "MARK", "model_card", "role_of"]

CARD = "README.md"
# Only a card that has it is replaced by the next push.
MARK = "<!-- Written by `lengthpred push`; without this line, the next push keeps the file. -->"

WHAT = {
    "predictor": "Predicts how many tokens a language model's answer will have, before it runs.",
    "detector": "Tells requests to a language model that are unlike those it was trained on.",
}
USE = {
    "predictor": """```python
from lengthpred import Request, load

predictor = load("{repo}")
predictor.predict([Request(prompt="Write a haiku about rivers")]).median()  # tokens
```""",
    "detector": """```python
from lengthpred import Request
from lengthpred.artifact import load_storable

detector = load_storable("{repo}")
detector.p_value([Request(prompt="Write a haiku about rivers")])  # small where it is unlike them
```""",
}
INSTALL = """`pip install 'lengthpred[hub]'` brings what that needs. `{repo}@COMMIT` as the name
gives the same files each time."""
METRICS = {
    "tau": "Kendall's tau-b of the median",
    "mae": "mean absolute error of the median, tokens",
    "crps": "CRPS, tokens",
    "coverage_80": "share of lengths inside the 80 % interval",
}


def model_card(repo: str, manifest: Manifest, needs: References, license: str = "") -> str:
    """The card in Markdown, with the metadata that the hub reads.

    It has no clock in it: the same artifact gives the same card.
    """
    role = role_of(manifest)
    licensed = [f"license: {license}"] if license else []
    head = ["---", "library_name: lengthpred", *licensed, "tags:", "- lengthpred"]
    parts = [
        "\n".join([*head, "- output-length-prediction", "---"]),
        MARK,
        f"# {repo.split('/')[1]}",
        WHAT[role],
        USE[role].format(repo=repo),
        INSTALL.format(repo=repo),
        _facts(manifest),
        *_scores(manifest),
        *_needs(needs),
    ]
    return "\n\n".join(parts) + "\n"


def role_of(manifest: Manifest) -> str:
    """What an artifact holds: a predictor or a detector."""
    return "predictor" if hasattr(resolve(manifest.kind), "predict") else "detector"


def _facts(manifest: Manifest) -> str:
    models = ", ".join(_code(name) for name in manifest.models) or "not recorded"
    grid = manifest.grid
    rows = {
        "kind": _code(manifest.kind),
        "target models": models,
        "lengths": f"{len(grid) - 1} bins; the last, the overflow, begins at {grid[-2]:,} tokens",
        "trained with": f"lengthpred {manifest.library_version}, artifact format {FORMAT_VERSION}",
        "sha256 of the training data": _code(manifest.fingerprint) or "not recorded",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())])


def _scores(manifest: Manifest) -> list[str]:
    if not manifest.metrics:
        return []
    rows = [
        f"| `{name}` | {METRICS.get(name, '')} | {value:.4g} |"
        for name, value in sorted(manifest.metrics.items())
    ]
    return [
        "## Scores on its calibration rows",
        "\n".join(["| metric | is | value |", "|---|---|---|", *rows]),
        "These are of traffic like that it was trained on. `lengthpred eval` says what it is worth "
        "on yours, beside controls and the best that is possible.",
    ]


def _needs(needs: References) -> list[str]:
    lines = [
        f"- the language model {_code(model)}"
        + (f" at revision {_code(revision)}" if revision else "")
        + f" on the machine that asks: `hf download {model.replace('`', '')}`"
        for model, revision in needs.models
    ]
    lines += [
        f"- a server at {_code(url)} with the model {_code(model)}. **It is sent the prompts**, "
        "and the key in `LENGTHPRED_API_KEY` where that is set."
        for url, model in needs.servers
    ]
    return ["## What it needs besides", "\n".join(lines)] if lines else []


def _code(text: str) -> str:
    """As code in a cell of a table, whatever it holds."""
    plain = " ".join(text.replace("`", "'").replace("|", "/").split())
    return f"`{plain}`" if plain else ""
