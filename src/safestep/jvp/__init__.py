"""J p, how far a step moves the logits: the recorded forward again, differentiated along the step."""
