"""The peers, each in its own words: a worker and a producer with the modes of `benchmarks.queue.producer`."""
