"""Is it due, what would be done, doing it to one value, proving it. Pure: ports and `now` come in."""
