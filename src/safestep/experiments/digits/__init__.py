"""The handwritten digits under fixed rates, capped and pinned steps."""
