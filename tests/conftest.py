"""Settings for every test."""

from hypothesis import settings

# The same examples in every run: a failure in one place is a failure in all of them.
settings.register_profile("lengthpred", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("lengthpred")
