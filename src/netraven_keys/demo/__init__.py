"""A credential store to watch a rotation on: the same code as everywhere, on sample data."""
