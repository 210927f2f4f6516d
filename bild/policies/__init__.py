"""Who has the last word on each token: one small object per system."""
