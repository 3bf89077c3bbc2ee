"""What a key is, what may become of it, and how it is written down. Pure: bytes and `now` in."""
