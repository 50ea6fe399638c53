"""What each dashboard shows, and what all of them share (grafana.py)."""
