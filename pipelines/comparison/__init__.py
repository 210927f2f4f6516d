"""Every system on one pair."""
