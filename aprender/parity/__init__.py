"""Two implementations compared operator by operator: what honest rounding may do, and what it may not."""
