"""What is searched, how it is measured, and what is remembered."""
