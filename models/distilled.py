"""The distilled predictor: the boosted one, trained to what dearer predictors say."""

from lengthpred.models.boosted import Boosted

__all__ = ["Distilled"]


class Distilled(Boosted):
    """`Boosted`: what it costs and how it answers is the same; see `lengthpred.training.distilled`.

    Its scores are ranks of lengths, as a teacher expects them.
    """

    kind = "distilled"
