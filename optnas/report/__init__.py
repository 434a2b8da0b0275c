"""What people read about a study: text, a page, figures, costs, the dashboard."""
