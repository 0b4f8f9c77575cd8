"""Images in files or in data sets of others: found, checked, and decoded by worker processes."""
