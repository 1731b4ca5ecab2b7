"""The performance numbers of the READMEs, written from the committed records: `python -m sonew_perf.numbers`."""
