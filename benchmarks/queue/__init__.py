"""The queue against its peers, on one store in one run, by `make bench-queue`: docs/performance.md says how to read it."""
