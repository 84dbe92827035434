"""Placet's gate: consent, decision, log and permit. Free of tensors, media and web frameworks; see policy/README.md."""
