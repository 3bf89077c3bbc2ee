"""The command line, one file per group of verbs. It builds nothing itself: wiring does."""
