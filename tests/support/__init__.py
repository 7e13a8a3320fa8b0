"""What tests share: real processes, time limits that scale, checks for leaks."""
