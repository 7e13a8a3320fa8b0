"""Measurements: ratios against a peer in one run, by `make bench`. A timing never decides a test."""
