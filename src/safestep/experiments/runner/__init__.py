"""How experiments run: settings, seeds, run directories that resume, processes and clusters."""
