"""What is timed, against whom. Ratios side by side in one run, medians."""
