"""A guard's log looked at, live in a terminal and as a page; and the page of a post-mortem."""
