"""Training under random faults: a schedule of them, a loop that meets them, a book of what has to come out."""
