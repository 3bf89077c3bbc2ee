"""Bytes in, bytes out. No files, no clock, no settings."""
