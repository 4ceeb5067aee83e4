"""The certificate authority: its root, sealed in the store, and what it signs."""
