"""`python -m lengthpred.cli` is the `lengthpred` command."""

from lengthpred.cli.app import main

main()
