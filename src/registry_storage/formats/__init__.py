"""Layer formats: pure, bytes in and values out."""
