"""What is kept of a step: the reading of its ratio, the report of what was done, and the history of both."""
