"""From files of numbers to rows that are read from disk as they are needed."""
