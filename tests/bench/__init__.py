"""`make bench`: how fast it is, beside a reference that is measured in the same run."""
