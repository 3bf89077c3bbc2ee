"""age files (https://age-encryption.org/v1): sealed for a passphrase or for public keys, and opened again."""
