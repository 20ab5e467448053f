"""Files that nobody meant: every reader of the library gets mutated files, and must refuse them in one clear line."""
