"""The words of a report, for those who meet them for the first time."""

__all__ = ["MEANINGS"]

MEANINGS = {
    "pairs right": "Of all pairs of requests whose answers differ in length, the share that the "
    "predictor orders right; ties count half. 50 % is chance.",
    "tau": "Kendall's tau-b between predicted and true lengths: 1 is a perfect order, 0 chance.",
    "mean and median error": "Absolute difference between the median of the prediction and the "
    "true length, in tokens.",
    "CRPS": "Continuous ranked probability score: how far the whole predicted distribution is from "
    "the truth, in tokens; that of a certainty is its absolute error.",
    "pinball 90": "Loss of the predicted 90 % quantile: 0.9 tokens for each token that it is too "
    "low, 0.1 for each that it is too high.",
    "coverage 80": "Share of true lengths inside the predicted central 80 % interval.",
    "what is left": "The rest of an answer, given what exists of it: the error of its predicted "
    "median, and the order by that where requests are at mixed progress.",
    "naive rule": "Predicted total less what exists, at least 0, and never asked again.",
    "interval": "The middle 95 % over resamples of whole conversations, the same for all "
    "predictors; in a simulation, Student's interval of the mean over draws.",
    "out of distribution (OOD)": "Requests of a kind that the training data does not have.",
    "noise ceiling": "Asked the same again, a model writes another length. The ceiling is how well "
    "a row's other answers order one of them: an estimate from few samples, and so rather low.",
    "constant, prompt-length": "Controls: the same answer to all, and a table from the length of "
    "the prompt. What does not beat them has learned nothing of use.",
    "oracle": "A control that knows the true lengths; oracle-noise knows them with an error.",
    "AUROC": "Chance that a detector finds an unfamiliar request stranger than a familiar one; "
    "50 % is chance.",
    "fcfs": "First come, first served: what servers do.",
    "sjf": "Shortest job first, by the predicted length.",
    "latency, TTFT": "Time from arrival to the last token, and to the first.",
    "longest tenth": "The tenth of the requests with the longest answers, which wait most where "
    "short ones go first.",
    "load": "Rate of arrivals as a share of the rate that the engine can serve; above 100 % the "
    "queue grows as long as requests come.",
    "tokens/s": "Tokens of prompts and answers over the time from the first arrival to the last "
    "token.",
}
