"""Tables: from the text of a file to numbers that a network takes."""
