"""A stored value: what it is bound to, what format it is in, how it opens. Pure.

Shared by the application's client and by the rotation, so that both read a value the same way.
"""
