"""What a backup is: its document, the manifest beside it, how long it is kept, how it is restored. Rules only."""
