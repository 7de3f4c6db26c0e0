"""What image files hold: one module a format."""
