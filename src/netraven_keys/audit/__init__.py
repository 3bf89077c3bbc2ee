"""The record of every change: intent before effect, result after; no audit, no change."""
