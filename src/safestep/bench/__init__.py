"""What measuring costs: every method beside a plain step, in time and memory. Behind `safestep bench`."""
