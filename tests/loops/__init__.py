"""What people wrap around a model or a step, one row each: how it trains under a guard, and what has to come out."""
