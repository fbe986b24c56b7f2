"""A ladder, or any runs, as one self-contained HTML page: no torch, no network, the same input always the same page."""
