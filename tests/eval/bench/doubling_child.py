"""A process that multiplies what it is asked by its argument."""

from lengthpred.eval.bench.child import answer_jobs

if __name__ == "__main__":
    answer_jobs(lambda arguments: lambda job: {"x": job["x"] * int(arguments[0])})
