"""Kills workers and the store while clients submit, cancel and watch jobs, then judges what every side has seen."""
