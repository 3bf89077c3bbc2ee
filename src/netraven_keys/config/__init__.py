"""The one place that reads the world: the settings file, the environment, files with secrets."""
