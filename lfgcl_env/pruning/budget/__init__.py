"""What strategies cost, and the projection onto a budget."""
