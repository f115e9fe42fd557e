"""The process of `Driver`: the stock `vllm bench serve`, loaded once for all runs."""

from typing import Any

from lengthpred.eval.bench.child import answer_jobs


def main() -> None:
    """Run the tool for each job: its arguments."""
    answer_jobs(_tool)


def _tool(arguments: list[str]) -> Any:
    from vllm.benchmarks.serve import add_cli_args
    from vllm.benchmarks.serve import main as run
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    add_cli_args(parser)

    def work(job: dict[str, Any]) -> dict[str, Any]:
        run(parser.parse_args([*arguments, *job["arguments"]]))
        return {}

    return work


if __name__ == "__main__":
    main()
