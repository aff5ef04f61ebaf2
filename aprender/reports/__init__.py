"""One record in, one format out. Nothing here measures, judges or decides."""
