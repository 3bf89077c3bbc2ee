"""What wraps the root key, one file each. A provider wraps bytes and does not know why."""
