"""One layer: its index, its content, and how what is missing gets here."""
