"""Does the lifted model do what the file does: at every kind of size, and whose fault it is where not."""
