"""Several processes: what agrees across ranks, sharded tensors, and units that gather their parameters."""
