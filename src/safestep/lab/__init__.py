"""What experiments need: data sets, small models, seeds and a training loop that keeps records."""
