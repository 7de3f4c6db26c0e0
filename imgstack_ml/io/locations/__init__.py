"""Where image files are: folders, archives, URLs."""
