"""The rivals of a guard: ways of others to train without a rate, and to clip gradients, as their authors recommend."""
