"""Plan and run a job, from its options to its output."""
