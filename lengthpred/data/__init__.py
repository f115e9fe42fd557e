"""Tables of requests and true lengths: readers, token counts, splits."""
