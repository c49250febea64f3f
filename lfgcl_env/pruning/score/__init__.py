"""What a strategy is worth: features, where they are compared, and how."""
