"""One's own noisy descent: texts of a command line read into what a simulation is made of, its outcome in words."""
