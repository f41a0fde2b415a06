"""What an experiment shows: tables, figures, the page, and what is missing of a run."""
