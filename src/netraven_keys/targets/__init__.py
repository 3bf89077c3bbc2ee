"""Where ciphertext lies. A carrier moves opaque values and cannot read them."""
