"""What an auditor asks for, made of the audit log and the keyring, signed, and checkable later."""
