"""How alarms leave the machine: by webhook, by mail."""
