"""Certificates: bounds on every attacker who gets one of a few codes."""
