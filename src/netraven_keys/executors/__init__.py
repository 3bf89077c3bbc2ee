"""Executors of other machines. Each is imported only when it is chosen."""
