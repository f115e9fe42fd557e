"""How short the starvation bound may be: replays of recorded traces under several bounds.

    python -m tests.benchmarks.aging TRACES --out DIR

TRACES is a folder of Parquet files with the columns arrival_s, input_tokens and output_tokens, in
order of time. Each is replayed at several loads with sjf by an oracle and by a predictor that is
as good as real ones (the truth times log-normal noise), at each bound and without one. The default
of max_overtake_s is the shortest bound that keeps 95 % of the gain of no bound.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from lengthpred.errors import require
from lengthpred.eval.replay.continuous import replay_continuous
from lengthpred.eval.replay.measures import measure_replay
from lengthpred.eval.replay.order import Order
from lengthpred.metrics import tau
from lengthpred.ordering import EPOCH_S, OrderingSettings, priority
from tests.benchmarks.traces import Recorded, read_traces

BOUNDS_S = (10, 30, 60, 120, 300, 600, 1200, 1800, 2400, 3600, 7200)
LOADS = (0.95, 1.1, 1.3)
REQUESTS = 4000
NOISE = 0.9  # standard deviation of the logarithm: a tau of about 0.5
KEPT = 0.95


def main() -> None:
    """Print a line for each trace, load and predictor, and write them as JSON and as a plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    found = [line for trace in read_traces(asked.traces, REQUESTS) for line in _sweep(trace)]
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "aging.json").write_text(json.dumps(found, indent=1))
    _tell(found, asked.out)


def _tell(found: list[dict[str, Any]], out: Path) -> None:
    """Print what each bound keeps over all replays with a gain to keep, and draw it."""
    useful = [one for one in found if one["gain"] > 0.02]
    graphs = require("plotly.graph_objects", "train", "The plot")
    figure = graphs.Figure()
    for one in useful:
        figure.add_trace(
            graphs.Scatter(
                x=BOUNDS_S,
                y=[one["kept"][str(bound)] for bound in BOUNDS_S],
                mode="lines",
                line={"color": "rgba(120, 120, 120, 0.35)", "width": 1},
                showlegend=False,
            )
        )
    middle = {b: float(np.median([one["kept"][str(b)] for one in useful])) for b in BOUNDS_S}
    for bound, kept in middle.items():
        tails = [one["longest_p99"][str(bound)] for one in useful]
        least = min(one["kept"][str(bound)] for one in useful)
        print(
            f"{bound:>6} s keeps {kept:.2f} of the gain (least {least:.2f}); p99 of the longest "
            f"tenth {np.median(tails):.2f} of fcfs (most {max(tails):.2f})"
        )
    figure.add_trace(
        graphs.Scatter(
            x=list(middle),
            y=list(middle.values()),
            mode="lines+markers",
            line={"color": "#0b6e99", "width": 3},
            name=f"median of {len(useful)} replays",
        )
    )
    figure.add_hline(y=KEPT, line={"dash": "dot", "color": "#888"}, annotation_text="95 %")
    figure.update_xaxes(
        type="log", tickvals=BOUNDS_S, title="max_overtake_s: the starvation bound, in seconds"
    )
    figure.update_yaxes(range=[0, 1.1], tickformat=".0%", title="share of unaged sjf's gain kept")
    figure.update_layout(
        template="plotly_white",
        legend={"x": 0.02, "y": 0.98},
        margin={"t": 20, "r": 20},
        width=860,
        height=420,
    )
    figure.write_html(out / "aging.html", include_plotlyjs=True, config={"displayModeBar": False})


def _sweep(trace: Recorded) -> list[dict[str, Any]]:
    output = trace.work.output_tokens.astype(np.float64)
    noisy = output * np.exp(np.random.default_rng(0).normal(0, NOISE, len(output)))
    engine, lines = trace.engine, []
    for load in LOADS:
        work = trace.at(load)
        plain = measure_replay(work, replay_continuous(work, Order(np.arange(len(work))), engine))
        for predictor, guess in (("oracle", output), ("noisy", noisy)):
            latency = {}
            for bound in (*map(float, BOUNDS_S), float("inf")):
                settings = OrderingSettings(max_overtake_s=bound)
                cost = np.minimum(guess, settings.cap)
                keys = priority(cost, work.arrival_s + EPOCH_S, settings)
                measured = measure_replay(work, replay_continuous(work, Order(keys), engine))
                latency[bound] = measured["mean_e2el_ms"], measured["p99_e2el_ms_longest_tenth"]
            fcfs = plain["mean_e2el_ms"]
            gain = 1 - latency[float("inf")][0] / fcfs
            kept_at = tuple(map(float, BOUNDS_S))
            kept = {str(int(b)): (1 - latency[b][0] / fcfs) / gain for b in kept_at}
            tail = {
                str(int(b)): latency[b][1] / plain["p99_e2el_ms_longest_tenth"] for b in kept_at
            }
            enough = next((b for b in BOUNDS_S if kept[str(b)] >= KEPT), None)
            lines.append(
                {
                    "trace": trace.name,
                    "load": load,
                    "predictor": predictor,
                    "tau": tau(guess, output),
                    "queue": plain["mean_queue_depth"],
                    "wait_s": plain["mean_ttft_ms"] / 1e3,
                    "gain": gain,
                    "kept": kept,
                    "longest_p99": tail,
                    "enough_s": enough,
                }
            )
            print(
                f"{trace.name:36} load {load:.2f} {predictor:7} tau {tau(guess, output):.2f} queue "
                f"{plain['mean_queue_depth']:6.0f} wait {plain['mean_ttft_ms'] / 1e3:6.1f} s "
                f"gain {gain:6.1%} needs {enough} s",
                flush=True,
            )
    return lines


if __name__ == "__main__":
    main()
