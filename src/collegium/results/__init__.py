"""What runs and studies say, in numbers, and what papers have published."""
