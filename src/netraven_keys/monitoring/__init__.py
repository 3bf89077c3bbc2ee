"""What monitoring is told: metrics, and a heartbeat."""
