"""What safestep buys, beside what else there is: over every rate, without one, and through disturbances."""

EXPERIMENTS = {"rates": "rates", "no-rate": "no_rate", "spikes": "spikes"}
