"""The page: pictures of a person in, pictures of that person out. Nothing that a visitor sends is written to a disk."""
