"""What drafts in place of a second model."""
