"""What torch and Python leave out: generators, wrappers, call stacks, warnings said once, extras by name."""
