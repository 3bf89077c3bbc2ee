"""Where documents lie. Carries opaque bytes; cannot read what is in them."""
