"""The use cases, one file each: the only place where the other rooms meet."""
