"""From a problem to its naive loop nests: the program that every strategy starts from."""
