"""What is shown: tables and pages of runs, studies, papers' tables and the ranking."""
