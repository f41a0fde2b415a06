"""Which outputs of a model are heads, and how the loss reads them, as their gradients tell."""
