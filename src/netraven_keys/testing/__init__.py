"""A test kit: the seams in memory, and a clock one sets. For rules; nothing else imports it.

Each of these passes the same contract suite as the real ones (tests/contract).
"""
