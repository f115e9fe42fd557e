"""The rows of the experiment's tables, in the order in which they are told."""

from dataclasses import dataclass

from lengthpred.eval.sqlm_fig1.reading import Found
from lengthpred.eval.sqlm_fig1.setting import Fig1Result

__all__ = ["HEAD_ROWS", "PUBLISHED", "ROWS", "STREAM_ROWS", "Row"]

PUBLISHED = "published: S-QLM (at 0 on every query)"


@dataclass(frozen=True)
class Row:
    """One arm and how requests came, by the name that tables give it."""

    name: str
    policy: str
    predictor: str | None = None
    slm: str | None = None
    arrivals: str = "burst"

    @property
    def is_qlm(self) -> bool:
        """Whether all else is a multiple of it."""
        return (self.policy, self.predictor) == ("sjf", "qlm")

    def find(
        self, found: Found, engine: str, ratio: float, limit: int, m: str
    ) -> Fig1Result | None:
        """The measure `m` of it."""
        return found.get(
            *(engine, ratio, self.policy, self.predictor, m),
            slm=self.slm,
            arrivals=self.arrivals,
            limit=limit,
        )


ROWS = (
    Row("fcfs, random order", "fcfs"),
    Row("fcfs, long ones at the head", "fcfs", arrivals="burst-long-at-head"),
    Row("QLM", "sjf", "qlm"),
    Row("S-QLM, its SLM's time apart", "sjf", "sqlm", "apart"),
    Row("S-QLM, added", "sjf", "sqlm", "added"),
    Row("S-QLM, hidden", "sjf", "sqlm", "hidden"),
    Row("SLM on every query, apart", "sjf", "sqlm-all", "apart"),
    Row("SLM on every query, added", "sjf", "sqlm-all", "added"),
    Row("SLM on every query, hidden", "sjf", "sqlm-all", "hidden"),
    Row("oracle", "sjf", "oracle"),
    Row("longest first, QLM", "longest-first", "qlm"),
    Row("longest first, S-QLM", "longest-first", "sqlm", "apart"),
    Row("longest first, SLM on every query", "longest-first", "sqlm-all", "apart"),
    Row("longest first, oracle", "longest-first", "oracle"),
)
"""All at once."""
HEAD_ROWS = (
    Row("fcfs", "fcfs", arrivals="burst-long-at-head"),
    Row("QLM", "sjf", "qlm", arrivals="burst-long-at-head"),
    Row("S-QLM, its SLM's time apart", "sjf", "sqlm", "apart", "burst-long-at-head"),
    Row("S-QLM, added", "sjf", "sqlm", "added", "burst-long-at-head"),
    Row("S-QLM, hidden", "sjf", "sqlm", "hidden", "burst-long-at-head"),
    Row("oracle", "sjf", "oracle", arrivals="burst-long-at-head"),
)
"""All at once, the longest answers first in the queue."""
STREAM_ROWS = (
    Row("fcfs", "fcfs", arrivals="poisson"),
    Row("QLM", "sjf", "qlm", arrivals="poisson"),
    Row("S-QLM, its SLM's time apart", "sjf", "sqlm", "apart", "poisson"),
    Row("S-QLM, hidden", "sjf", "sqlm", "hidden", "poisson"),
    Row("SLM on every query, apart", "sjf", "sqlm-all", "apart", "poisson"),
    Row("SLM on every query, hidden", "sjf", "sqlm-all", "hidden", "poisson"),
    Row("oracle", "sjf", "oracle", arrivals="poisson"),
)
"""In a stream."""
