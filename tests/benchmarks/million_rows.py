"""Peak memory and time of importing a million rows and training on them.

    python -m tests.benchmarks.million_rows [--rows 1000000]

Each step is the real command in a process of its own. The rows are made here: prompts of made-up
words whose number and choice bear on the length.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

VOCABULARY = 20_000


def main() -> None:
    """Read the arguments, make the file, run the steps, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "log.csv").open("w", encoding="utf-8") as file:
            file.writelines(_lines(rows))
        _step(
            "import", folder, "data", "import", "log.csv", "--format", "csv", "--out", "t.parquet"
        )
        for kind in ("histogram", "boosted", "detector"):
            _step(f"train {kind}", folder, "train", kind, "--data", "t.parquet", "--out", kind)


def _lines(rows: int) -> Iterator[str]:
    rng = np.random.default_rng(0)
    words = np.array([f"w{number:x}" for number in range(VOCABULARY)])
    yield "prompt,output_tokens,model\n"
    for start in range(0, rows, 10_000):
        for _ in range(min(10_000, rows - start)):
            picked = (VOCABULARY * rng.random(int(rng.integers(5, 80))) ** 3).astype(int)
            length = int(rng.gamma(2.0, 20 + picked.min() + 3 * len(picked)))
            yield f"{' '.join(words[picked])},{length},model-{picked[0] % 3}\n"


def _step(name: str, folder: Path, *arguments: str) -> None:
    """Run one command in a process of its own and print its time and peak memory."""
    begun = time.monotonic()
    code = (
        "import sys, json, resource\n"
        "from lengthpred.cli.app import main\n"
        "try: main()\n"
        "finally: print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    kilobytes = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{name:<18} {time.monotonic() - begun:6.0f} s, peak {kilobytes / 1024:6.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
