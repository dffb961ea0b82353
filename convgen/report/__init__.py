"""What was chosen for a network, and why, as one page."""
