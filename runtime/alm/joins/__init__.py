"""Where a long recording is cut into windows for one text, and how texts of windows are joined."""
