"""Models on disk: where they are, how they are loaded, what makes a folder a checkpoint and two models the same."""
