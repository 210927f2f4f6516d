"""The fastest policy whose quality loss against the large model stays within a bound, and what of that is promised."""
