"""What a running scheduler says: a closed list of events, and how they are written."""
