"""What an experiment shows: pages, tables, findings in words, what is missing."""
