"""Readers of what others wrote. No function here can encrypt."""
