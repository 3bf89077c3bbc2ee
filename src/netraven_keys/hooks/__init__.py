"""The operator's programs around a change. They know nothing of keys."""
